package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/clayer/clayer/solver/sandbox/helper"
)

// Tree implements sandbox.Layered: a helper holds the mounts, and its view of the machine is
// read through /proc.
func (v *View) Tree(ctx context.Context) (dir string, release func() error, err error) {
	if err := v.ready(); err != nil {
		return "", nil, err
	}
	held, hold, err := os.Pipe()
	if err != nil {
		return "", nil, err
	}
	mounted, tell, err := os.Pipe()
	if err != nil {
		return "", nil, errors.Join(err, held.Close(), hold.Close())
	}
	defer mounted.Close()
	pid, ended := make(chan int, 1), make(chan error, 1)
	go func() {
		p := helper.Process{Stdin: held, Spool: tell, Started: func(n int) { pid <- n }}
		err := v.do(ctx, helper.Job{Task: helper.TaskHold}, p)
		ended <- errors.Join(err, held.Close(), tell.Close())
	}()
	release = func() error {
		hold.Close()
		return <-ended
	}
	if _, err := io.ReadFull(mounted, make([]byte, 1)); err != nil {
		return "", nil, fmt.Errorf("show a view as a directory: %w", errors.Join(err, release()))
	}
	return filepath.Join(fmt.Sprintf("/proc/%d/root", <-pid), v.dir, helper.RootDir), release, nil
}
