// Package emulate gives a command in place what mounts would give it. Nothing can be mounted over
// what is in the root, so it depends on the kind of the mount.
package emulate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
	"github.com/clayer/clayer/solver/sandbox/internal/mountstubs"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
)

// Mounts are those of one command.
type Mounts struct {
	Root string // where the command runs
	Warn func(format string, args ...any)

	// Reaches reports whether the user who runs the command gets to a path. nil: it is the
	// user of this process.
	Reaches func(path string) bool

	list    []sandbox.Mount
	stubs   mountstubs.Set
	sources map[int]int // descriptors of what is to be copied, by the index of the mount
	secrets []*os.File
}

// Open prepares the mounts, before this process enters the root: from there no path of the
// machine leads to their sources.
func (h *Mounts) Open(list []sandbox.Mount) error {
	h.list, h.sources = list, make(map[int]int)
	for i := range list {
		how := unix.O_RDONLY
		switch m := list[i]; {
		case m.Socket:
			how = unix.O_PATH
		case !m.Passing:
			continue
		}
		fd, err := unix.Open(list[i].Source, how|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: list[i].Source, Err: err}
		}
		h.sources[i] = fd
	}
	return nil
}

// Remove removes all that was put, whatever has become of it.
func (h *Mounts) Remove() { h.stubs.Remove(h.Warn) }

// linkTo puts a link to a mount's source at its target.
func (h *Mounts) linkTo(m sandbox.Mount) error {
	fd, err := unix.Open(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: m.Source, Err: err}
	}
	defer unix.Close(fd)
	if _, err := CheckSource(m, fd); err != nil {
		return err
	}
	return h.stubs.Link(m.Target, m.Source)
}

// Put puts a mount into the root, depending on its kind:
//
//	secret   nothing may stand at the target; a link to a file in memory is put
//	         there, or the file itself where such a link cannot be read
//	bind     a copy; nothing may stand at the target but an empty directory
//	agent    a link to its socket, in another root than / the socket itself
//	cache    a link to the cache's directory; a directory that stands there already
//	         is taken for a cache itself
//	tmpfs    a directory that is removed afterwards; one that stands there has to
//	         be empty, or scratch space such as /tmp
//
// All that is put there goes when the command has ended, whatever became of it.
func (h *Mounts) Put(i int) error {
	m := h.list[i]
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
	case m.Socket && there:
		return errors.New("something exists there, and in place nothing can be mounted over it: give the agent another target")
	case m.Socket && h.Root == "/":
		return h.linkTo(m)
	case m.Socket:
		return h.socket(m, h.sources[i])
	case m.Passing:
		return h.copy(m, h.sources[i], there)
	case m.ReadOnly:
		return errors.New("in place a mount can't be read-only")
	case there && !st.IsDir():
		return errors.New("it is not a directory, and in place nothing can be mounted over it")
	case m.Source != "" && there:
		return nil
	case m.Source != "" && h.Root == "/" && (h.Reaches == nil || h.Reaches(m.Source)):
		return h.linkTo(m)
	case m.Source != "" && h.Root == "/":
		h.Warn("the cache mount at %s begins empty, and is dropped: in place, the user of the RUN cannot reach %s", m.Target, m.Source)
	case there && isScratch(m.Target):
		return nil
	case there:
		return h.borrow(m.Target)
	}
	mode := m.Mode
	if mode == 0 {
		mode = 0o1777 // as /tmp
	}
	if err := h.stubs.Directory(m.Target); err != nil {
		return err
	}
	if err := unix.Chmod(m.Target, mode&0o7777); err != nil {
		return err
	}
	return h.chown(m)
}

// chown is as tar does it for a user: without privilege, things are the user's.
func (h *Mounts) chown(m sandbox.Mount) error {
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
func (h *Mounts) emulateSecret(m sandbox.Mount) error {
	mode := m.Mode
	if mode == 0 {
		mode = 0o400
	}
	if h.Reaches != nil || os.Geteuid() == 0 && (m.UID != 0 || m.GID != 0) {
		return h.secretFile(m, mode) // another user may not follow the link
	}
	f, err := descriptor.Memory("secret", m.Content, mode)
	if err != nil {
		return h.secretFile(m, mode)
	}
	h.secrets = append(h.secrets, f) // open as long as the helper is
	target := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	mark := h.stubs.Len()
	if err := h.stubs.Link(m.Target, target); err != nil {
		return err
	}
	if b, err := os.ReadFile(m.Target); err == nil && bytes.Equal(b, m.Content) {
		return nil
	}
	h.stubs.RemoveFrom(mark, h.Warn)
	return h.secretFile(m, mode)
}

// secretFile is on the disk of the root for as long as the command runs, where
// that is no tmpfs.
func (h *Mounts) secretFile(m sandbox.Mount, mode uint32) error {
	return h.stubs.Put(m.Target, mountstubs.Name, func(parent int, name string) error {
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

// socket gives a socket another name, at the target: in this root no link leads to it.
func (h *Mounts) socket(m sandbox.Mount, fd int) error {
	defer unix.Close(fd)
	err := h.stubs.Put(m.Target, mountstubs.Name, func(parent int, name string) error {
		return unix.Linkat(fd, "", parent, name, unix.AT_EMPTY_PATH)
	})
	if errors.Is(err, unix.EXDEV) {
		err = fmt.Errorf("in place the socket of an agent has to be on the file system of the root, which TMPDIR is not on: %w", err)
	}
	return err
}

// borrow takes an empty directory that is there.
func (h *Mounts) borrow(target string) error {
	names, err := os.ReadDir(target)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return errors.New("the directory is not empty, and in place nothing can be mounted over it: choose another target")
	}
	return h.stubs.Borrow(target)
}

// copy puts a copy of an open directory, or file, at the target of a bind. What the command
// changes in it goes with it.
func (h *Mounts) copy(m sandbox.Mount, source int, there bool) error {
	defer unix.Close(source)
	isDir, err := CheckSource(m, source)
	switch {
	case err != nil:
		return err
	case !isDir && there:
		return errors.New("something exists there, and in place nothing can be mounted over it: choose another target")
	case !isDir:
		return h.stubs.Put(m.Target, mountstubs.Name, func(parent int, name string) error { return treecopy.File(source, parent, name) })
	case there:
		if st, err := os.Lstat(m.Target); err != nil || !st.IsDir() {
			return errors.Join(err, errors.New("it is not a directory, and in place nothing can be mounted over it: choose another target"))
		}
		err = h.borrow(m.Target)
	default:
		err = h.stubs.Directory(m.Target)
	}
	if err != nil {
		return err
	}
	to, err := unix.Open(m.Target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: m.Target, Err: err}
	}
	defer unix.Close(to)
	return treecopy.Into(context.Background(), source, to, !there)
}

// CheckSource returns an error unless a mount's source is the directory that it was
// when it was opened, and whether it is a directory.
func CheckSource(m sandbox.Mount, fd int) (isDir bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: m.Source, Err: err}
	}
	if id := (sandbox.FileID{Dev: st.Dev, Ino: st.Ino}); m.SourceID != (sandbox.FileID{}) && id != m.SourceID {
		return false, fmt.Errorf("%s was replaced meanwhile by another directory", m.Source)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}
