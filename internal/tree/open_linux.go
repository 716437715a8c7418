package tree

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/beneath"
)

// restamp has node i show the times of the name by now, if it is still what was read.
func (r *Reading) restamp(fd int, name string, i int32) error {
	n := r.at(i)
	s, err := statx(fd, name, false, new(unix.Statx_t))
	if beneath.Moved(err) || err == nil && (s.Ino != n.Ino || s.Mode != n.Mode || s.kind() == unix.S_IFREG && s.Size != n.Size) {
		return nil // others are at work there: the next reading shows it
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	n.MSec, n.MNsec, n.CSec, n.CNsec = s.MSec, s.MNsec, s.CSec, s.CNsec
	if _, ok := r.sums[i]; ok {
		x, err := sumAt(context.Background(), fd, name)
		if err != nil {
			return &os.PathError{Op: "read", Path: name, Err: err}
		}
		r.sums[i] = x
	}
	return nil
}

// lowerDir is an open directory of the tree that an overlay lies over: in each of its
// layers, the highest first, that shows one there.
type lowerDir []layer

type layer struct {
	top string // its own directory
	fd  int
}

const openDir = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// openLower opens the layers. What it returns with an error is to be closed, too.
func openLower(tops []string) (l lowerDir, err error) {
	for _, top := range tops {
		fd, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return l, &os.PathError{Op: "open", Path: top, Err: err}
		}
		l = append(l, layer{top, fd})
	}
	return l, nil
}

// directory opens a directory of each layer that the kernel merges: those down to the
// first that has something else there. What it returns with an error is to be closed, too.
func (l lowerDir) directory(name string) (dirs lowerDir, err error) {
	for _, at := range l {
		fd, err := unix.Openat(at.fd, name, openDir, 0)
		switch err {
		case nil:
			dirs = append(dirs, layer{at.top, fd})
		case unix.ENOENT:
		case unix.ENOTDIR, unix.ELOOP:
			return dirs, nil
		default:
			return dirs, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
	return dirs, nil
}

// stat returns what the highest layer has that has something; nil where nothing is.
func (l lowerDir) stat(name string, owner func(uid, gid uint32) (uint32, uint32)) (*seen, error) {
	for _, at := range l {
		n, err := statAt(at.fd, name)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "stat", Path: name, Err: err}
		}
		if owner != nil {
			n.UID, n.GID = owner(n.UID, n.GID)
		}
		n.layer = at.top
		return &n, nil
	}
	return nil, nil
}

// list returns the names in the directory, some of them more than once.
func (l lowerDir) list() (names []string, err error) {
	for _, at := range l {
		fd, err := unix.Openat(at.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: ".", Err: err}
		}
		more, err := list(fd, false)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return names, nil
}

func (l lowerDir) close() {
	for _, at := range l {
		unix.Close(at.fd)
	}
}

func major(rdev uint64) uint32 { return unix.Major(rdev) }
func minor(rdev uint64) uint32 { return unix.Minor(rdev) }
