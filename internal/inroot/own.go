package inroot

import (
	"errors"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/internal/safefile"
)

// A Dir is an open directory with files of clayer's own. Their names are relative to
// it, and lead through no link.
type OwnDir struct {
	root *os.Root
	sys  Sys
}

// OpenOwn opens the directory name of the directory root, through no link; root ""
// is none: name is a path then, of which the last element is no link.
func (s Sys) OpenOwn(root, name string) (*OwnDir, error) {
	if err := s.read("open"); err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	if root == "" {
		dir, err := safefile.OpenDir(name)
		return &OwnDir{dir, s}, err
	}
	above, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer above.Close()
	dir, err := safefile.OpenDirIn(above, name)
	return &OwnDir{dir, s}, err
}

// MakeOwn makes the directory name of the directory root, and those above it, through
// no link; root "" as in OpenDirIn.
func (s Sys) MakeOwn(root, name string, mode fs.FileMode) error {
	if err := s.change("mkdir"); err != nil {
		return &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	if root == "" {
		return safefile.MakeAll(name, mode)
	}
	above, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer above.Close()
	return safefile.MkdirAll(above, name, mode)
}

// Close closes the directory.
func (d *OwnDir) Close() error { return d.root.Close() }

// Check returns an error unless the directory, and all that it holds, belongs to the
// user or root, can be changed by no other user, and is made of directories and
// regular files. What its directories hold is not looked at: no other user puts
// anything there.
func (d *OwnDir) Check() error {
	if err := safefile.CheckDir(d.root); err != nil {
		return err
	}
	entries, err := d.ReadDir(".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := d.checkEntry(e)
		// A command that ends removes some, and what may not be opened is not used.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func (d *OwnDir) checkEntry(e fs.DirEntry) error {
	if e.IsDir() {
		dir, err := safefile.OpenDirIn(d.root, e.Name())
		if err != nil {
			return err
		}
		defer dir.Close()
		return safefile.CheckDir(dir)
	}
	f, err := safefile.OpenFile(d.root, e.Name(), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return safefile.CheckFile(f)
}

// Open opens a file to read.
func (d *OwnDir) Open(name string) (*File, error) {
	if err := d.sys.read("open"); err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f, err := safefile.OpenFile(d.root, name, os.O_RDONLY, 0)
	return &File{f, d.sys}, err
}

// ReadFile reads a file.
func (d *OwnDir) ReadFile(name string) ([]byte, error) {
	if err := d.sys.read("read"); err != nil {
		return nil, &os.PathError{Op: "read", Path: name, Err: err}
	}
	return safefile.ReadFile(d.root, name, math.MaxInt64-1)
}

// ReplaceFile writes a file that is seen whole or not at all. No other process may do
// so at the same time.
func (d *OwnDir) ReplaceFile(name string, data []byte) error {
	fresh := name + ".new"
	if err := d.Remove(fresh); err != nil { // of a kill
		return err
	}
	f, err := d.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = d.sys.WriteFile(f, data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.Rename(fresh, name)
	}
	if err != nil {
		_ = d.Remove(fresh)
	}
	return err
}

// ReadDir lists a directory; one that is not there is empty.
func (d *OwnDir) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := d.sys.read("readdir"); err != nil {
		return nil, &os.PathError{Op: "readdir", Path: name, Err: err}
	}
	dir, err := safefile.OpenDirIn(d.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// Exists reports whether something has a name, be it a link to nothing.
func (d *OwnDir) Exists(name string) (bool, error) {
	if err := d.sys.read("stat"); err != nil {
		return false, &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	_, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Stat returns what stands at a name, following no link.
func (d *OwnDir) Stat(name string) (fs.FileInfo, error) {
	if err := d.sys.read("stat"); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	return d.root.Lstat(name)
}

// OpenFile opens a regular file to write, and makes it if flags say so.
func (d *OwnDir) OpenFile(name string, flags int, mode fs.FileMode) (*os.File, error) {
	called := d.sys.read
	if flags&(os.O_CREATE|os.O_TRUNC) != 0 { // any other needs no room on the disk
		called = d.sys.change
	}
	if err := called("open"); err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return safefile.OpenFile(d.root, name, flags, mode)
}

// TryLock is safefile.TryLock with a file that can be written: who may not write it may not
// change what it guards, and is not to wait for it.
func (d *OwnDir) TryLock(name string) (*os.File, error) {
	f, err := safefile.OpenFile(d.root, name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return safefile.TryLock(d.root, name, unix.LOCK_EX)
}

// SyncDir makes the names in a directory outlive a loss of power, where that is due at once.
func (d *OwnDir) SyncDir(name string) error {
	if d.sys.Durability != durability.Durable {
		return nil
	}
	if err := d.sys.change("fsync"); err != nil {
		return &os.PathError{Op: "sync", Path: name, Err: err}
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// MkdirAll makes a directory, and those above it.
func (d *OwnDir) MkdirAll(name string, mode fs.FileMode) error {
	if is, err := d.Exists(name); err != nil || is {
		if err != nil {
			return err
		}
		return safefile.MkdirAll(d.root, name, mode) // which looks what it is
	}
	if err := d.sys.change("mkdir"); err != nil {
		return &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return safefile.MkdirAll(d.root, name, mode)
}

// Remove removes a file, or a directory that is empty; nothing there is no error.
func (d *OwnDir) Remove(name string) error {
	if err := d.sys.change("unlink"); err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveAll removes a file, or a directory with all in it.
func (d *OwnDir) RemoveAll(name string) error {
	if err := d.sys.change("unlink"); err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	err := d.root.RemoveAll(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// In it is a directory of the root that its owner may not read, enter or write.
	werr := fs.WalkDir(d.root.FS(), name, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = d.root.Chmod(p, 0o700)
		}
		return err
	})
	if werr != nil {
		return err
	}
	return d.root.RemoveAll(name)
}

// Rename gives a file another name.
func (d *OwnDir) Rename(from, to string) error {
	if err := d.sys.change("rename"); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return d.root.Rename(from, to)
}
