package helper

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
	"github.com/clayer/clayer/solver/sandbox/internal/emulate"
	"github.com/clayer/clayer/solver/sandbox/internal/program"
)

// What the helper of a command in place does. There is no namespace around it:
// what the command leaves running is found among the descendants of the helper,
// which adopts every orphan below it.

// inPlace runs the job's command on the root itself.
func (h *helper) inPlace(res *result, stdin int) (err error) {
	// The death signal of the command is tied to the thread that starts it.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("ask for orphans: %w", err)
	}
	h.proc = openProc()
	mounts := emulate.Mounts{Root: h.Root, Warn: h.warn}
	if h.User != nil {
		mounts.Reaches = func(path string) bool { return program.MayReach(h.User, path) }
	}
	if err := mounts.Open(h.Mounts); err != nil {
		return err
	}
	if h.Root != "/" {
		if err := unix.Chroot(h.Root); err != nil {
			return fmt.Errorf("enter %s: %w", h.Root, err)
		}
	}
	if h.Dir == "" {
		h.Dir = "/"
	}
	if err := h.makeDir(); err != nil {
		return err
	}
	defer mounts.Remove()
	for i := range h.Mounts {
		if err := mounts.Put(i); err != nil {
			return fmt.Errorf("mount %s: %w", h.Mounts[i].Target, err)
		}
	}
	script, err := h.scriptFile()
	if err != nil {
		return fmt.Errorf("stage the script: %w", err)
	}
	if err := os.Chdir(h.Dir); err != nil {
		return err
	}
	res.Status = h.command(stdin, script)
	return nil
}

// scriptFile is script for a command in place: the file is nowhere on disk.
func (h *helper) scriptFile() (*os.File, error) {
	if len(h.Script) == 0 {
		return nil, nil
	}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return nil, fmt.Errorf("a script with #! takes a /proc in the root: %w", err)
	}
	return descriptor.Memory("script", h.Script, 0o755)
}
