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

// BeforeCall is asked before each system call of this package, which is not made
// where it returns an error. nil but in tests, which stop a change of a root at each
// of its calls in turn, or let it fail there as a full disk or a bad one does. reads
// tells a call that changes nothing.
var BeforeCall func(name string, reads bool) error

func allowed(name string) error {
	if BeforeCall == nil {
		return nil
	}
	return BeforeCall(name, false)
}

func mayRead(name string) error {
	if BeforeCall == nil {
		return nil
	}
	return BeforeCall(name, true)
}

// A File is an os.File that is read.
type File struct{ *os.File }

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := mayRead("read"); err != nil {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: err}
	}
	return f.File.ReadAt(p, off)
}

// WriteFile appends to an open file, and returns how many bytes it wrote.
func WriteFile(f *os.File, p []byte) (int, error) {
	if err := allowed("write"); err != nil {
		return 0, &os.PathError{Op: "write", Path: f.Name(), Err: err}
	}
	return f.Write(p)
}

// SyncFile makes the content of a file outlive a loss of power.
func SyncFile(f *os.File) error {
	if err := allowed("fsync"); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return f.Sync()
}

// MkdirAll is os.MkdirAll, but that the modes do not depend on the umask.
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
	if err := os.Mkdir(path, mode); err != nil {
		if errors.Is(err, fs.ErrExist) { // somebody was faster
			return nil
		}
		return err
	}
	if err := allowed("chmod"); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	return os.Chmod(path, mode)
}

// Rmdir removes a directory that is empty.
func Rmdir(path string) error {
	if err := allowed("unlink"); err != nil {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	if err := unix.Rmdir(path); err != nil {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

// ReadDir is os.ReadDir.
func ReadDir(path string) ([]fs.DirEntry, error) {
	if err := mayRead("readdir"); err != nil {
		return nil, &os.PathError{Op: "readdir", Path: path, Err: err}
	}
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}
