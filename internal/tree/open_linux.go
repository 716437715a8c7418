package tree

import (
	"context"
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
)

// OpenAt opens the slash-separated path below dir with the flags of open(2).
// No link is followed, neither at the end nor on the way, and the path may be
// longer than the kernel takes in one call.
func OpenAt(dir, path string, flags int) (*os.File, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(at)
	return openBelow(at, path, flags)
}

// openBelow is OpenAt for an open directory.
func openBelow(root int, path string, flags int) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	openat2 := inroot.HasOpenat2()
	at, err := root, error(nil)
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
		if at != root {
			unix.Close(at)
		}
		if err != nil {
			return fail(err)
		}
		if !more {
			return os.NewFile(uintptr(fd), path), nil
		}
		at, path = fd, path[n+1:]
	}
}

// Parents opens the directories in which things are, one after the other: it keeps the last.
type Parents struct {
	Dir  string // the tree's own directory
	root *os.File
	path string
	file *os.File
}

// Of returns the open directory of a path, good until the next call, and the name in it. No
// link is followed.
func (p *Parents) Of(name string) (fd int, base string, err error) {
	dir := path.Dir(name)
	if p.file == nil || dir != p.path {
		if p.file != nil {
			p.file.Close()
			p.file = nil
		}
		if p.root == nil {
			if p.root, err = OpenAt(p.Dir, ".", unix.O_PATH|unix.O_DIRECTORY); err != nil {
				return -1, "", err
			}
		}
		if p.file, err = openBelow(int(p.root.Fd()), dir, unix.O_PATH|unix.O_DIRECTORY); err != nil {
			return -1, "", err
		}
		p.path = dir
	}
	return int(p.file.Fd()), path.Base(name), nil
}

// Moved reports whether an error says that what was read at a path, or a directory above it,
// is gone, or is something else by now.
func Moved(err error) bool {
	return vanished(err) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// Close closes what is open.
func (p *Parents) Close() {
	for _, f := range []**os.File{&p.file, &p.root} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// restamp has node i show the times of the name by now, if it is still what was read.
func (r *Reading) restamp(fd int, name string, i int32) error {
	n := r.at(i)
	s, err := statx(fd, name, false, new(unix.Statx_t))
	if Moved(err) || err == nil && (s.Ino != n.Ino || s.Mode != n.Mode || s.kind() == unix.S_IFREG && s.Size != n.Size) {
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

// extents lists where the file has data; nil if it has no holes.
func extents(fd int, name string, size int64) ([]extent, error) {
	data := []extent{}
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
