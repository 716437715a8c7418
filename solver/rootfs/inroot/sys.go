// Package inroot has the system calls that a root is read and changed by, and
// finds names in a root as a process chrooted to it does: nothing that stands in
// a root leads out of it.
package inroot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// BeforeCall is asked before each system call of this package that changes
// something, or looks at what is to be changed; the call is not made where it
// returns an error. nil but in tests, which stop a change of a root at each of
// its calls in turn, or let it fail there as a full disk or a bad one does.
var BeforeCall func(name string) error

func allowed(name string) error {
	if BeforeCall == nil {
		return nil
	}
	return BeforeCall(name)
}

// OpenFile is os.OpenFile.
func OpenFile(path string, flags int, mode fs.FileMode) (*os.File, error) {
	if err := allowed("open"); err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.OpenFile(path, flags, mode)
}

// WriteFile appends to an open file.
func WriteFile(f *os.File, p []byte) error {
	if err := allowed("write"); err != nil {
		return &os.PathError{Op: "write", Path: f.Name(), Err: err}
	}
	_, err := f.Write(p)
	return err
}

// SyncFile makes the content of a file outlive a loss of power.
func SyncFile(f *os.File) error {
	if err := allowed("fsync"); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return f.Sync()
}

// SyncDir makes the names in a folder outlive a loss of power.
func SyncDir(path string) error {
	if err := allowed("fsync"); err != nil {
		return &os.PathError{Op: "sync", Path: path, Err: err}
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// MkdirAll is os.MkdirAll.
func MkdirAll(path string, mode fs.FileMode) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := MkdirAll(filepath.Dir(path), mode); err != nil {
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

// Remove is os.Remove; nothing there is no error.
func Remove(path string) error {
	if err := allowed("unlink"); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Rename is os.Rename.
func Rename(from, to string) error {
	if err := allowed("rename"); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return os.Rename(from, to)
}

// RemoveAll is os.RemoveAll.
func RemoveAll(path string) error {
	if err := allowed("unlink"); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return os.RemoveAll(path)
}
