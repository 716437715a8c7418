package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/helper"
	"github.com/clayer/clayer/solver/sandbox/internal/detached"
)

// Tree implements sandbox.Layered: a helper holds the mounts, its view of the machine is read
// through /proc, and it sends what commands are to mount.
func (v *View) Tree(ctx context.Context) (tree sandbox.Tree, release func() error, err error) {
	if err := v.ready(); err != nil {
		return tree, nil, err
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return tree, nil, err
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "view"), os.NewFile(uintptr(ends[1]), "view")
	pid, ended := make(chan int, 1), make(chan error, 1)
	go func() {
		p := helper.Process{Spool: theirs, Started: func(n int) {
			theirs.Close() // else nobody would know that it has ended
			pid <- n
		}}
		err := v.do(ctx, helper.Job{Task: helper.TaskHold}, p)
		theirs.Close()
		ended <- err
	}()
	release = func() error {
		ours.Close()
		return <-ended
	}
	if _, err := io.ReadFull(ours, make([]byte, 1)); err != nil {
		return tree, nil, fmt.Errorf("show a view as a directory: %w", errors.Join(err, release()))
	}
	var mu sync.Mutex
	tree.Dir = filepath.Join(fmt.Sprintf("/proc/%d/root", <-pid), v.dir, helper.RootDir)
	tree.Mount = func(path string) (*os.File, error) {
		mu.Lock()
		defer mu.Unlock()
		return detached.Ask(ours, path)
	}
	return tree, release, nil
}
