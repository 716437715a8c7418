// Package beneath opens what is below a directory, and follows no link, neither at the end of a
// path nor on the way. Of an open file it says where it has data.
package beneath

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
)

// Open opens the slash-separated path below dir with the flags of open(2).
// No link is followed, neither at the end nor on the way, and the path may be
// longer than the kernel takes in one call.
func Open(dir, path string, flags int) (*os.File, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(at)
	return openBelow(at, path, flags)
}

// openBelow is Open for an open directory.
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
			if p.root, err = Open(p.Dir, ".", unix.O_PATH|unix.O_DIRECTORY); err != nil {
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

// File returns a descriptor of a file for reading, which the caller closes. It does not wait for
// the writer of a FIFO that is there instead.
func (p *Parents) File(name string) (fd int, err error) {
	for {
		held := p.file != nil && p.path == path.Dir(name)
		at, base, err := p.Of(name)
		if err != nil {
			return -1, err
		}
		for {
			fd, err = unix.Openat(at, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err != unix.EINTR {
				break
			}
		}
		if err == nil {
			return fd, nil
		}
		p.Close()
		if !held || err != unix.ENOENT {
			return -1, &os.PathError{Op: "open", Path: name, Err: err}
		}
		// Another directory may be there by now.
	}
}

// Moved reports whether an error says that what was read at a path, or a directory above it,
// is gone, or is something else by now.
func Moved(err error) bool {
	return Vanished(err) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// Vanished reports whether the error of a look at a name means that it is gone,
// or was a link when it was first looked at and is none now.
func Vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESTALE)
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
