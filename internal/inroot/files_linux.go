package inroot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// IsDir reports whether a directory stands there; nil is nothing.
func IsDir(st *unix.Stat_t) bool { return st != nil && st.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsLink reports whether a symlink stands there; nil is nothing.
func IsLink(st *unix.Stat_t) bool { return st != nil && st.Mode&unix.S_IFMT == unix.S_IFLNK }

// List returns the names in an open directory, in no order.
func (s Sys) List(fd int) ([]string, error) {
	dup, err := s.OpenDirAt(fd, ".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), ".")
	defer f.Close()
	if err := s.read("readdir"); err != nil {
		return nil, err
	}
	return f.Readdirnames(-1)
}

// Timespec returns a time as the kernel takes it.
func Timespec(t time.Time) unix.Timespec {
	// Not UnixNano, which knows no time before 1677 or after 2262.
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// RemoveAllAt deletes a directory with all in it, following nothing.
func (s Sys) RemoveAllAt(at int, name string) error {
	if err := s.Free(at, name); err != nil {
		return err
	}
	fd, err := s.OpenDirAt(at, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := s.List(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := s.Unlinkat(fd, n, 0)
		if errors.Is(err, unix.EISDIR) { // what Linux says, where POSIX has EPERM
			err = s.RemoveAllAt(fd, n)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return s.Unlinkat(at, name, unix.AT_REMOVEDIR)
}

// WriteAt writes all of p to an open file.
func (s Sys) WriteAt(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := s.pwrite(fd, p, off)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		n = max(n, 0)
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Below returns where in a root a directory is, without links, and which directory it is;
// "" where it is somewhere else.
func Below(dir, target string) (string, FileID, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", FileID{}, err
	}
	target, err = filepath.EvalSymlinks(target)
	if err != nil {
		return "", FileID{}, err
	}
	rel, err := filepath.Rel(root, target)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", FileID{}, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil {
		return "", FileID{}, fmt.Errorf("stat %s: %w", target, err)
	}
	return rel, IDOf(&st), nil
}
