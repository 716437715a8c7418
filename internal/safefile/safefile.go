// Package safefile opens files where somebody else may have prepared what stands
// there: a link to elsewhere, a FIFO that never answers, a file without end.
//
// A directory is held open as an *os.Root, which no name leads out of. The
// functions follow no link, wait for nothing, and take regular files alone. Those
// for a path that the user named (Open, Read, ReadInput) follow links.
package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that a name is not that of a regular file: a link, a
// directory, a FIFO, a socket or a device.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge says that a file is larger than the caller is ready to read.
var ErrTooLarge = errors.New("the file is too large")

// OpenDir opens the directory at path. Links are followed in the names before
// the last, which are the user's; the last must not be one.
func OpenDir(path string) (*os.Root, error) {
	return openDir(path, os.Lstat, os.OpenRoot)
}

// OpenDirIn opens a directory of dir: no element of name may be a link.
func OpenDirIn(dir *os.Root, name string) (*os.Root, error) {
	if err := noLinks(dir, path.Dir(name)); err != nil {
		return nil, err
	}
	return openDir(name, dir.Lstat, dir.OpenRoot)
}

// openDir compares what it opened with what stood there, since the one who
// opens follows a link.
func openDir(name string, lstat func(string) (fs.FileInfo, error), open func(string) (*os.Root, error)) (*os.Root, error) {
	want, err := lstat(name)
	if err != nil {
		return nil, err
	}
	if !want.IsDir() {
		return nil, notDir(name, want.Mode())
	}
	dir, err := open(name)
	if err != nil {
		return nil, err
	}
	got, err := dir.Stat(".")
	if err == nil && !os.SameFile(want, got) {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("replaced while it was opened")}
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// MakeDir is OpenDir for a directory that is created as by MakeAll if it is missing.
func MakeDir(path string, perm fs.FileMode) (*os.Root, error) {
	if err := MakeAll(filepath.Clean(path), perm); err != nil {
		return nil, err
	}
	return OpenDir(path)
}

// MakeAll creates a directory and the missing ones above it. The modes do not depend
// on the umask. Those above get 0755; but a private directory (perm has no bits for
// group and others) is in one that is private too: a cache directory is created
// with the first thing that is stored there.
func MakeAll(path string, perm fs.FileMode) error {
	above := filepath.Dir(path)
	if _, err := os.Stat(path); err != nil && above != path {
		mode := fs.FileMode(0o755)
		if perm&0o077 == 0 {
			mode = perm
		}
		if err := MakeAll(filepath.Dir(above), 0o755); err != nil {
			return err
		}
		if err := makeDir(above, mode); err != nil {
			return err
		}
	}
	return makeDir(path, perm)
}

// makeDir creates one directory, unless it is there.
func makeDir(path string, perm fs.FileMode) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: unix.ENOTDIR}
		}
		return nil
	}
	if err := os.Mkdir(path, perm); err != nil {
		if info, e := os.Lstat(path); e == nil && info.IsDir() { // somebody was faster
			return nil
		}
		return err
	}
	return os.Chmod(path, perm)
}

// MkdirAll makes a directory in dir, with those above it, and follows no link.
// The modes do not depend on the umask.
func MkdirAll(dir *os.Root, name string, perm fs.FileMode) error {
	if name = path.Clean(name); name == "." {
		return nil
	}
	switch info, err := dir.Lstat(name); {
	case err == nil && info.IsDir():
		return noLinks(dir, path.Dir(name))
	case err == nil:
		return notDir(path.Join(dir.Name(), name), info.Mode())
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := MkdirAll(dir, path.Dir(name), perm); err != nil {
		return err
	}
	switch err := dir.Mkdir(name, perm); {
	case errors.Is(err, fs.ErrExist): // somebody was faster
		return MkdirAll(dir, name, perm)
	case err != nil:
		return err
	}
	return dir.Chmod(name, perm)
}

// noLinks is an error unless name and all above it in dir are directories.
func noLinks(dir *os.Root, name string) error {
	if name = path.Clean(name); name == "." {
		return nil
	}
	if err := noLinks(dir, path.Dir(name)); err != nil {
		return err
	}
	info, err := dir.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return notDir(path.Join(dir.Name(), name), info.Mode())
	}
	return nil
}

func notDir(name string, mode fs.FileMode) error {
	return &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%s: %w", kind(mode), unix.ENOTDIR)}
}

// OpenFile opens a regular file of dir; no element of name may be a link. flag and
// perm are those of os.OpenFile, but that the mode of a file that is made does not
// depend on the umask. O_TRUNC takes effect when it is known what was opened.
func OpenFile(dir *os.Root, name string, flag int, perm fs.FileMode) (*os.File, error) {
	parent, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { parent.Close() }()
	name = path.Clean(name)
	for {
		first, rest, more := strings.Cut(name, "/")
		if first == ".." || first == "" {
			return nil, &fs.PathError{Op: "open", Path: path.Join(parent.Name(), name), Err: fs.ErrInvalid}
		}
		if !more {
			return OpenAt(parent, name, flag, perm)
		}
		full := path.Join(parent.Name(), first)
		fd, err := openat(parent, first, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: full, Err: err}
		}
		parent.Close()
		parent, name = os.NewFile(uintptr(fd), full), rest
	}
}

// OpenAt is OpenFile for a single name in an open directory.
func OpenAt(dir *os.File, name string, flag int, perm fs.FileMode) (*os.File, error) {
	full := path.Join(dir.Name(), name)
	fail := func(err error) (*os.File, error) { return nil, &fs.PathError{Op: "open", Path: full, Err: err} }
	fd, made, err := openOrMake(dir, name, flag&^os.O_TRUNC, perm)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a link; a FIFO or socket without a reader
		err = fmt.Errorf("%w: %w", ErrNotRegular, err)
	}
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(fd), full)
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s: %w", kind(info.Mode()), ErrNotRegular)
	case made:
		err = f.Chmod(perm)
	case flag&os.O_TRUNC != 0 && info.Size() > 0:
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return fail(err)
	}
	return f, nil
}

// openOrMake is openat, and reports whether it made the file.
func openOrMake(dir *os.File, name string, flag int, perm fs.FileMode) (fd int, made bool, err error) {
	isNew := flag&os.O_EXCL != 0
	for {
		if !isNew {
			fd, err = openat(dir, name, flag&^os.O_CREATE, perm)
			if flag&os.O_CREATE == 0 || !errors.Is(err, fs.ErrNotExist) {
				return fd, false, err
			}
		}
		fd, err = openat(dir, name, flag|os.O_EXCL, perm)
		if isNew || !errors.Is(err, fs.ErrExist) { // else somebody was faster
			return fd, err == nil, err
		}
	}
}

func openat(dir *os.File, name string, flag int, perm fs.FileMode) (fd int, err error) {
	return openatFD(int(dir.Fd()), name, flag, perm)
}

func openatFD(dir int, name string, flag int, perm fs.FileMode) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, name, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, uint32(perm.Perm()))
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// ReadFile reads a regular file of dir that has at most limit bytes, as OpenFile
// opens it.
func ReadFile(dir *os.Root, name string, limit int64) ([]byte, error) {
	f, err := OpenFile(dir, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, limit)
}

func tooLarge(path string, limit int64) error {
	return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)}
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "a file"
}
