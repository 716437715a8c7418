package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// beforeCall is asked before each system call that changes something, and
// before those that look at what is to be changed; the call is not made where
// it returns an error. nil but in the tests, which stop an apply at each of its
// calls in turn, or let it fail there as a full disk or a bad one does.
var beforeCall func(name string) error

func allowed(name string) error {
	if beforeCall == nil {
		return nil
	}
	return beforeCall(name)
}

func openFile(path string, flags int, mode fs.FileMode) (*os.File, error) {
	if err := allowed("open"); err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.OpenFile(path, flags, mode)
}

func writeFile(f *os.File, p []byte) error {
	if err := allowed("write"); err != nil {
		return &os.PathError{Op: "write", Path: f.Name(), Err: err}
	}
	_, err := f.Write(p)
	return err
}

func syncFile(f *os.File) error {
	if err := allowed("fsync"); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return f.Sync()
}

// syncDir makes the names in a folder outlive a loss of power.
func syncDir(path string) error {
	if err := allowed("fsync"); err != nil {
		return &os.PathError{Op: "sync", Path: path, Err: err}
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !isInvalid(err) {
		return err
	}
	return nil
}

// mkdirAll is os.MkdirAll.
func mkdirAll(path string, mode fs.FileMode) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := mkdirAll(filepath.Dir(path), mode); err != nil {
		return err
	}
	if err := allowed("mkdir"); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func removePath(path string) error {
	if err := allowed("unlink"); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func renamePath(from, to string) error {
	if err := allowed("rename"); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return os.Rename(from, to)
}

// removeTree is os.RemoveAll.
func removeTree(path string) error {
	if err := allowed("unlink"); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return os.RemoveAll(path)
}
