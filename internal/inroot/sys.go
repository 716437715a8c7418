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

	"github.com/clayer/clayer/internal/durability"
)

// A Hook is asked before each system call of a Sys. Tests have one: it stops a change
// of a root at each of its calls in turn, or lets it fail there as a full disk or a bad
// one does. Files are created by several goroutines, which all ask it.
type Hook interface {
	// Before returns an error for a call that is not to be made. reads says that the
	// call changes nothing.
	Before(call string, reads bool) error
}

// Sys makes the system calls by which a root is read and changed. The zero value
// makes them all.
type Sys struct {
	Hook           Hook // nil: none
	WithoutOpenat2 bool // resolve names part by part, as on kernels without openat2(2)

	// Durability says which syncs are made: of a file and of names, Durable's alone.
	Durability durability.Mode
}

// change asks the hook before a call that changes something.
func (s Sys) change(call string) error {
	if s.Hook == nil {
		return nil
	}
	return s.Hook.Before(call, false)
}

// read asks the hook before a call that changes nothing.
func (s Sys) read(call string) error {
	if s.Hook == nil {
		return nil
	}
	return s.Hook.Before(call, true)
}

// A File is an os.File that is read.
type File struct {
	*os.File
	sys Sys
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := f.sys.read("read"); err != nil {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: err}
	}
	return f.File.ReadAt(p, off)
}

// WriteFile appends to an open file, and returns how many bytes it wrote.
func (s Sys) WriteFile(f *os.File, p []byte) (int, error) {
	if err := s.change("write"); err != nil {
		return 0, &os.PathError{Op: "write", Path: f.Name(), Err: err}
	}
	return f.Write(p)
}

// SyncFile makes the content of a file outlive a loss of power, where that is due at once.
func (s Sys) SyncFile(f *os.File) error {
	if s.Durability != durability.Durable {
		return nil
	}
	if err := s.change("fsync"); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return f.Sync()
}

// MkdirAll is os.MkdirAll, but that the modes do not depend on the umask.
func (s Sys) MkdirAll(path string, mode fs.FileMode) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := s.MkdirAll(filepath.Dir(path), mode); err != nil {
		return err
	}
	if err := s.change("mkdir"); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	if err := os.Mkdir(path, mode); err != nil {
		if errors.Is(err, fs.ErrExist) { // somebody was faster
			return nil
		}
		return err
	}
	if err := s.change("chmod"); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	return os.Chmod(path, mode)
}

// Rmdir removes a directory that is empty.
func (s Sys) Rmdir(path string) error {
	if err := s.change("unlink"); err != nil {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	if err := unix.Rmdir(path); err != nil {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

// ReadDir is os.ReadDir.
func (s Sys) ReadDir(path string) ([]fs.DirEntry, error) {
	if err := s.read("readdir"); err != nil {
		return nil, &os.PathError{Op: "readdir", Path: path, Err: err}
	}
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}
