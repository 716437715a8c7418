package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/internal/workdir"
)

// A cache is a cache mount. One that begins with files has an id of its own for each content:
// what RUNs have made of another one is another cache, as with BuildKit.
type cache struct {
	mount.Mount
	begins *frontend.Mount // where the files are from; nil: it begins empty
}

// A contentError says that what a cache begins with cannot be had.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

// caches returns the mounts of a RUN with these ids.
func (src *Source) caches(ctx context.Context, run *frontend.Run) ([]cache, error) {
	all := make([]cache, len(run.Mounts))
	for i := range run.Mounts {
		m := &run.Mounts[i]
		all[i].Mount = m.Mount
		if m.Type != mount.Cache || !m.HasFiles() {
			continue
		}
		pin, err := src.Pin(ctx, m)
		if err != nil {
			return nil, err
		}
		all[i].ID = fmt.Sprintf("%s of %s%s", m.ID, pin, m.Source)
		if m.Source == "" && m.Owned { // as BuildKit has it, it is an empty directory of that owner
			all[i].ID += fmt.Sprintf(" for %d:%d %o", m.UID, m.GID, m.Mode)
			continue
		}
		all[i].begins = m
	}
	return all, nil
}

// begin makes the directory of a cache, called name, of the files that it begins with, unless
// it is there.
func (m *cache) begin(ctx context.Context, src *Source, dir *os.Root, name string) error {
	if m.begins == nil {
		return nil
	}
	if _, err := dir.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp, err := workdir.New(dir.Name())
	if err != nil {
		return err
	}
	defer temp.Remove()
	files, err := src.Copy(ctx, m.begins, temp.Path)
	if err != nil {
		return &contentError{err}
	}
	err = os.Rename(files, filepath.Join(dir.Name(), name))
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) { // another RUN was faster
		return nil
	}
	return err
}
