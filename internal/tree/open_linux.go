package tree

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
)

// OpenAt opens the slash-separated path below dir with the flags of open(2).
// No link is followed, neither at the end nor on the way, and the path may be
// longer than the kernel takes in one call.
func OpenAt(dir, path string, flags int) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	openat2 := inroot.HasOpenat2()
	for {
		n := inroot.OneCall(path, openat2)
		more := n < len(path)
		how := flags | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if more {
			how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		var fd int
		if openat2 {
			// One call for a path, where it is three or more for the parts of most.
			fd, err = unix.Openat2(at, path[:n], &unix.OpenHow{
				Flags: uint64(how), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
			})
		} else {
			fd, err = unix.Openat(at, path[:n], how, 0)
		}
		unix.Close(at)
		if err != nil {
			return fail(err)
		}
		if !more {
			return os.NewFile(uintptr(fd), path), nil
		}
		at, path = fd, path[n+1:]
	}
}

// extents lists where the file has data; nil if it has no holes.
func extents(f *os.File, size int64) ([]extent, error) {
	data := []extent{}
	fd := int(f.Fd())
	for at := int64(0); at < size; {
		from, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole up to the end
		}
		if err == unix.EINVAL {
			return nil, nil // the file system knows no holes
		}
		if err != nil {
			return nil, err
		}
		to, err := unix.Seek(fd, from, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		from, to = min(from, size), min(to, size)
		if to > from {
			data = append(data, extent{Offset: from, Length: to - from})
		}
		at = to
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	if len(data) == 1 && data[0] == (extent{Length: size}) {
		return nil, nil
	}
	return data, nil
}

// lowerDir is an open directory of the tree that an overlay lies over.
type lowerDir struct{ fd int }

func openLower(dir string) (*lowerDir, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &lowerDir{fd}, nil
}

func (l *lowerDir) directory(name string) (*lowerDir, error) {
	fd, err := unix.Openat(l.fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return &lowerDir{fd}, nil
}

func (l *lowerDir) open(name string) (*os.File, error) {
	fd, err := unix.Openat(l.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// stat returns nil where nothing is.
func (l *lowerDir) stat(name string, owner func(uid, gid uint32) (uint32, uint32)) (*seen, error) {
	n, err := statAt(l.fd, name)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if owner != nil {
		n.UID, n.GID = owner(n.UID, n.GID)
	}
	return &n, nil
}

// list returns the names in the directory.
func (l *lowerDir) list() ([]string, error) {
	fd, err := unix.Openat(l.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: ".", Err: err}
	}
	defer unix.Close(fd)
	return list(fd)
}

func (l *lowerDir) close() {
	if l != nil {
		unix.Close(l.fd)
	}
}

func major(rdev uint64) uint32 { return unix.Major(rdev) }
func minor(rdev uint64) uint32 { return unix.Minor(rdev) }
