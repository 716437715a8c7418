package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/pathname"
)

// emulate gives a command in place what a mount would give it. Nothing can be
// laid over what stands in the root, so that it depends:
//
//	secret   nothing may stand at the target; a link to a file in memory is put
//	         there, or the file itself where such a link cannot be read
//	cache    a link to the cache's folder; a folder that stands there already
//	         is taken for a cache itself
//	tmpfs    a folder that is removed afterwards; one that stands there has to
//	         be empty, or scratch space such as /tmp
//
// All that is put there goes when the command has ended, whatever became of it.
func (h *helper) emulate(m Mount) error {
	st, err := os.Lstat(m.Target)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	there := err == nil
	switch {
	case m.Content != nil:
		if there {
			return fmt.Errorf("something stands there, and in place nothing can be laid over it: give the secret another target, or env=NAME")
		}
		return h.emulateSecret(m)
	case m.ReadOnly:
		return errors.New("in place a mount can't be read-only")
	case there && !st.IsDir():
		return errors.New("what stands there is no folder, and in place nothing can be laid over it")
	case m.Source != "" && there:
		return nil
	case m.Source != "" && h.Root == "/":
		return h.standIns.link(m.Target, m.Source)
	case there && isScratch(m.Target):
		return nil
	case there:
		names, err := os.ReadDir(m.Target)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return errors.New("the folder there is not empty, and in place nothing can be laid over it: choose another target")
		}
		return h.standIns.borrow(m.Target)
	}
	mode := m.Mode
	if mode == 0 {
		mode = 0o1777 // as /tmp
	}
	if err := h.standIns.folder(m.Target); err != nil {
		return err
	}
	if err := unix.Chmod(m.Target, mode&0o7777); err != nil {
		return err
	}
	return h.chown(m)
}

// chown is as tar does it for a user: without privilege, things are the user's.
func (h *helper) chown(m Mount) error {
	if m.UID == 0 && m.GID == 0 {
		return nil
	}
	err := os.Lchown(m.Target, m.UID, m.GID)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		return nil
	}
	return err
}

// isScratch reports whether nothing in the folder is ever captured, and nobody
// is surprised by what others left there.
func isScratch(target string) bool {
	for _, dir := range []string{"/tmp", "/var/tmp", "/run", "/dev/shm"} {
		if pathname.Under(target, dir) {
			return true
		}
	}
	return false
}

// emulateSecret avoids the disk where it can.
func (h *helper) emulateSecret(m Mount) error {
	mode := m.Mode
	if mode == 0 {
		mode = 0o400
	}
	if os.Geteuid() == 0 && (m.UID != 0 || m.GID != 0) {
		return h.secretFile(m, mode) // another user may not follow the link
	}
	f, err := memoryFile("secret", m.Content, mode)
	if err != nil {
		return h.secretFile(m, mode)
	}
	h.secrets = append(h.secrets, f) // open as long as the helper is
	target := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	mark := len(h.standIns.made)
	if err := h.standIns.link(m.Target, target); err != nil {
		return err
	}
	if b, err := os.ReadFile(m.Target); err == nil && bytes.Equal(b, m.Content) {
		return nil
	}
	h.standIns.removeFrom(mark, h.warn)
	return h.secretFile(m, mode)
}

// secretFile is on the disk of the root for as long as the command runs, where
// that is no tmpfs.
func (h *helper) secretFile(m Mount, mode uint32) error {
	return h.standIns.put(m.Target, aName, func(parent int, name string) error {
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
