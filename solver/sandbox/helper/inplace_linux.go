package helper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
	"github.com/clayer/clayer/solver/sandbox/internal/mountstubs"
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
	defer h.inPlaceStubs.Remove(h.warn)
	for _, m := range h.Mounts {
		if err := h.emulate(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
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

// linkTo puts a link to a mount's source at its target.
func (h *helper) linkTo(m sandbox.Mount) error {
	fd, err := unix.Open(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: m.Source, Err: err}
	}
	defer unix.Close(fd)
	if _, err := checkSource(m, fd); err != nil {
		return err
	}
	return h.inPlaceStubs.Link(m.Target, m.Source)
}

// emulate gives a command in place what a mount would give it. Nothing can be
// mounted over what is in the root, so it depends on the kind:
//
//	secret   nothing may stand at the target; a link to a file in memory is put
//	         there, or the file itself where such a link cannot be read
//	cache    a link to the cache's directory; a directory that stands there already
//	         is taken for a cache itself
//	tmpfs    a directory that is removed afterwards; one that stands there has to
//	         be empty, or scratch space such as /tmp
//
// All that is put there goes when the command has ended, whatever became of it.
func (h *helper) emulate(m sandbox.Mount) error {
	st, err := os.Lstat(m.Target)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	there := err == nil
	switch {
	case m.Content != nil:
		if there {
			return fmt.Errorf("something exists there, and in place nothing can be mounted over it: give the secret another target, or env=NAME")
		}
		return h.emulateSecret(m)
	case m.ReadOnly:
		return errors.New("in place a mount can't be read-only")
	case there && !st.IsDir():
		return errors.New("it is not a directory, and in place nothing can be mounted over it")
	case m.Source != "" && there:
		return nil
	case m.Source != "" && h.Root == "/":
		return h.linkTo(m)
	case there && isScratch(m.Target):
		return nil
	case there:
		names, err := os.ReadDir(m.Target)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return errors.New("the directory is not empty, and in place nothing can be mounted over it: choose another target")
		}
		return h.inPlaceStubs.Borrow(m.Target)
	}
	mode := m.Mode
	if mode == 0 {
		mode = 0o1777 // as /tmp
	}
	if err := h.inPlaceStubs.Directory(m.Target); err != nil {
		return err
	}
	if err := unix.Chmod(m.Target, mode&0o7777); err != nil {
		return err
	}
	return h.chown(m)
}

// chown is as tar does it for a user: without privilege, things are the user's.
func (h *helper) chown(m sandbox.Mount) error {
	if m.UID == 0 && m.GID == 0 {
		return nil
	}
	err := os.Lchown(m.Target, m.UID, m.GID)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		return nil
	}
	return err
}

// isScratch reports whether nothing in the directory is ever captured, and files of
// other programs are expected there.
func isScratch(target string) bool {
	for _, dir := range []string{"/tmp", "/var/tmp", "/run", "/dev/shm"} {
		if pathname.Under(target, dir) {
			return true
		}
	}
	return false
}

// emulateSecret avoids the disk where it can.
func (h *helper) emulateSecret(m sandbox.Mount) error {
	mode := m.Mode
	if mode == 0 {
		mode = 0o400
	}
	if os.Geteuid() == 0 && (m.UID != 0 || m.GID != 0) {
		return h.secretFile(m, mode) // another user may not follow the link
	}
	f, err := descriptor.Memory("secret", m.Content, mode)
	if err != nil {
		return h.secretFile(m, mode)
	}
	h.secrets = append(h.secrets, f) // open as long as the helper is
	target := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	mark := h.inPlaceStubs.Len()
	if err := h.inPlaceStubs.Link(m.Target, target); err != nil {
		return err
	}
	if b, err := os.ReadFile(m.Target); err == nil && bytes.Equal(b, m.Content) {
		return nil
	}
	h.inPlaceStubs.RemoveFrom(mark, h.warn)
	return h.secretFile(m, mode)
}

// secretFile is on the disk of the root for as long as the command runs, where
// that is no tmpfs.
func (h *helper) secretFile(m sandbox.Mount, mode uint32) error {
	return h.inPlaceStubs.Put(m.Target, mountstubs.Name, func(parent int, name string) error {
		fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), name)
		_, err = f.Write(m.Content)
		if err == nil {
			err = unix.Fchmod(fd, mode&0o7777)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		return h.chown(m)
	})
}
