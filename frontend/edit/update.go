// Package edit changes a Containerfile and preserves the rest of it: comments,
// spacing, line ends and mode. It knows what the command lines of package
// managers install, and which RUN repeats one.
package edit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/safefile"
)

// Update replaces the file at path by what change makes of its text, under a
// lock that all who call Update for files of that directory share. A file that
// doesn't exist is made; change is given nil then. It reports whether the file
// was changed: text that stays the same is not written.
//
// A reader, and whoever comes after a kill, finds the old text or the new one.
// A link stays a link: what it leads to is replaced. Mode and owner stay.
func Update(ctx context.Context, path string, change func(src []byte) ([]byte, error)) (changed bool, err error) {
	path, err = target(path)
	if err != nil {
		return false, err
	}
	dir := filepath.Dir(path)
	// The directory itself is locked: nothing is left beside the Containerfile, and
	// a file that is replaced can't carry a lock.
	lock := flock.New(dir, flock.SetFlag(os.O_RDONLY))
	if _, err := lock.TryLockContext(ctx, 5*time.Millisecond); err != nil {
		return false, fmt.Errorf("lock %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()

	src, err := safefile.Read(path, frontend.MaxFile)
	info, statErr := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		src, info = nil, nil
	case err != nil:
		return false, err
	case statErr != nil:
		return false, statErr
	}
	out, err := change(src)
	if err != nil || bytes.Equal(src, out) {
		return false, err
	}
	return true, replace(path, out, info)
}

// target follows links to the file that is to be written.
func target(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err == nil {
		return real, nil
	}
	if _, lerr := os.Lstat(abs); !errors.Is(lerr, fs.ErrNotExist) {
		// A link that leads nowhere, a directory that can't be read, or a file that
		// another has made since.
		return filepath.EvalSymlinks(abs)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	return filepath.Join(dir, filepath.Base(abs)), err
}

// replace writes a file beside path and renames it over path. info is of the
// file that is replaced, nil for none.
func replace(path string, data []byte, info fs.FileInfo) (err error) {
	if info != nil {
		// A rename asks the directory alone; who made the file read-only means it.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	dir := filepath.Dir(path)
	// One name, under the lock: what a kill left is taken away by the next.
	temp := filepath.Join(dir, "."+filepath.Base(path)+".clayer-new")
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	_, err = f.Write(data)
	if err == nil && info != nil {
		// The owner first: to change it takes setuid bits away.
		if err = preserveOwner(f, info); err == nil {
			err = f.Chmod(info.Mode())
		}
	}
	if err == nil {
		err = f.Sync() // before the name: a name must never show half a file
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil // it is renamed, if perhaps not yet for good
	}
	defer d.Close()
	_ = d.Sync() // some file systems can't sync a directory
	return nil
}
