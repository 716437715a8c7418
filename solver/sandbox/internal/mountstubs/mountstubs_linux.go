// Package mountstubs puts mount points and the like into a root for a command in place, and
// removes them after it.
package mountstubs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
	"golang.org/x/sys/unix"
)

// A Set is what is put into the root for a command in place, and goes with
// it. The command is free to do what it likes there, as the root's root: move a
// directory away and leave a link in its place, or mount something below. So what
// goes is found again through the directory that it was made in, which stays
// open; it has to be the thing that was made; and no other mount is entered.
type Set struct {
	made        []stub
	directories map[thing]*parentTimes // that something was put into
}

// Len returns how many there are.
func (s *Set) Len() int { return len(s.made) }

type stub struct {
	parent int // a descriptor
	name   string
	path   string // for words
	is     thing
	kind   Kind
}

// A Kind says how a stub is removed.
type Kind uint8

const (
	Name     Kind = iota // a link or a file
	aParent              // a directory above another; it stays if the command put something into it
	aDir                 // a directory, with all that the command put into it
	borrowed             // a directory that was there, and empty
)

// parentTimes are the times of a directory, before and after something was put into it.
type parentTimes struct{ before, after unix.Timespec }

// thing is a file, whatever its name. An inode's number is given again soon, so
// the time at which it was made belongs to it, where the file system knows.
type thing struct {
	dev, ino, mount uint64
	born            unix.StatxTimestamp
}

func lookAt(fd int, name string) (thing, *unix.Statx_t, error) {
	var st unix.Statx_t
	how := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		how |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(fd, name, how, unix.STATX_BASIC_STATS|unix.STATX_BTIME|unix.STATX_MNT_ID, &st); err != nil {
		return thing{}, nil, err
	}
	t := thing{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}
	// On an overlay the time of birth changes when a file is copied up.
	var fs unix.Statfs_t
	overlaid := unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.OVERLAYFS_SUPER_MAGIC
	if st.Mask&unix.STATX_BTIME != 0 && !overlaid {
		t.born = st.Btime
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		t.mount = st.Mnt_id
	}
	return t, &st, nil
}

func mtimeOf(st *unix.Statx_t) unix.Timespec {
	return unix.Timespec{Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)}
}

// put makes something at the path, and the directories above it where they are
// missing.
func (s *Set) Put(path string, kind Kind, make func(parent int, name string) error) error {
	dir, name := filepath.Split(path)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		err := s.Put(filepath.Clean(dir), aParent, func(parent int, name string) error { return unix.Mkdirat(parent, name, 0o755) })
		if err != nil {
			return err
		}
	}
	parent, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	directory, before, err := lookAt(parent, "")
	if err == nil {
		if err = make(parent, name); err != nil {
			err = fmt.Errorf("make %s: %w", path, err)
		}
	}
	if err != nil {
		unix.Close(parent)
		return err
	}
	in := stub{parent: parent, name: name, path: path, kind: kind}
	in.is, _, err = lookAt(parent, name)
	s.made = append(s.made, in)
	_, after, aerr := lookAt(parent, "")
	if err = errors.Join(err, aerr); err != nil {
		return err
	}
	if s.directories == nil {
		s.directories = map[thing]*parentTimes{}
	}
	if t := s.directories[directory]; t != nil {
		t.after = mtimeOf(after)
	} else {
		s.directories[directory] = &parentTimes{mtimeOf(before), mtimeOf(after)}
	}
	return nil
}

func (s *Set) Link(path, target string) error {
	return s.Put(path, Name, func(parent int, name string) error { return unix.Symlinkat(target, parent, name) })
}

func (s *Set) Directory(path string) error {
	return s.Put(path, aDir, func(parent int, name string) error { return unix.Mkdirat(parent, name, 0o755) })
}

// borrow lets an empty directory be used, and empties it again.
func (s *Set) Borrow(path string) error {
	return s.Put(path, borrowed, func(int, string) error { return nil })
}

// remove takes away all that was put, the last first, and gives the directories
// that it was in their times back, unless the command did something there too.
// What can't be removed safely stays, with a warning.
func (s *Set) Remove(warn func(format string, args ...any)) { s.RemoveFrom(0, warn) }

// removeFrom is remove for what was put last, but for the first n.
func (s *Set) RemoveFrom(n int, warn func(format string, args ...any)) {
	defer func() { _ = unix.Chdir("/") }()
	changed := make(map[thing]bool)
	for _, in := range slices.Backward(s.made[n:]) {
		directory, now, err := lookAt(in.parent, "")
		t := s.directories[directory]
		if err == nil && t != nil && mtimeOf(now) != t.after {
			changed[directory] = true
		}
		if err == nil {
			err = in.remove()
		}
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTEMPTY) && in.kind == aParent:
			changed[directory] = true // by the command's will
		default:
			changed[directory] = true
			warn("%s is left: %v", in.path, err)
		}
		if t != nil && !changed[directory] {
			_ = unix.UtimesNanoAt(in.parent, ".", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t.before}, 0)
			t.after = t.before // for what else was put there
		}
		unix.Close(in.parent)
	}
	s.made = s.made[:n]
}

var errOther = errors.New("something else stands there by now")

func (in stub) remove() error {
	at, st, err := uncover(in.parent, in.name, in.is)
	if err != nil {
		return err
	}
	if at != in.is {
		return errOther
	}
	switch in.kind {
	case Name:
		return unix.Unlinkat(in.parent, in.name, 0)
	case aParent:
		return unix.Unlinkat(in.parent, in.name, unix.AT_REMOVEDIR)
	}
	fd, err := unix.Openat(in.parent, in.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := empty(fd, at); err != nil {
		return err
	}
	if in.kind == borrowed {
		return unix.UtimesNanoAt(fd, ".", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtimeOf(st)}, 0)
	}
	return unix.Unlinkat(in.parent, in.name, unix.AT_REMOVEDIR)
}

// maxMounts bounds how many mounts over each other are taken off a name.
const maxMounts = 16

// uncover takes the mounts off a name of a directory until what is there is of the
// same mount as a thing, and returns that.
func uncover(directory int, name string, like thing) (thing, *unix.Statx_t, error) {
	at, st, err := lookAt(directory, name)
	for range maxMounts {
		if err != nil || at.sameMount(like) {
			return at, st, err
		}
		if err = unmountAt(directory, name); err == nil {
			at, st, err = lookAt(directory, name)
		}
	}
	return at, st, errOther
}

// sameMount compares devices where the kernel has no mount IDs.
func (t thing) sameMount(o thing) bool {
	return t.mount == o.mount && (t.mount != 0 || t.dev == o.dev)
}

// SameMount reports whether two paths are of one mount.
func SameMount(a, b string) bool {
	at, _, err := lookAt(unix.AT_FDCWD, a)
	if err != nil {
		return false
	}
	other, _, err := lookAt(unix.AT_FDCWD, b)
	return err == nil && at.sameMount(other)
}

// unmountAt takes the mount off a name of a directory: what is on it stays what it is.
func unmountAt(directory int, name string) error {
	if err := unix.Fchdir(directory); err != nil {
		return err
	}
	if err := unix.Unmount(name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("a mount that the command left there: %w", err)
	}
	return nil
}

// empty removes all that is in the open directory, in its own mount.
func empty(fd int, directory thing) error {
	list, err := descriptor.Names(fd)
	if err != nil {
		return err
	}
	for _, name := range list {
		at, st, err := uncover(fd, name, directory)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := unix.Unlinkat(fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
			continue
		}
		child, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = empty(child, at)
		unix.Close(child)
		if err == nil {
			err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
