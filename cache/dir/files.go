package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

func (d *Dir) tmp() string { return filepath.Join(d.path, "tmp") }

// init makes the folder a store.
func (d *Dir) init() error {
	for _, dir := range []string{d.tmp(), filepath.Join(d.path, "keys"), filepath.Join(d.path, "blobs", "sha256")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// What killed processes left counts for no bound: it must go while the
	// store is far from full, too.
	d.sweepOnce.Do(func() {
		if err := d.sweepTmp(); err != nil {
			slog.Warn("what a killed process left in the store stays", "path", d.tmp(), "err", err)
		}
	})
	path := filepath.Join(d.path, specs.ImageLayoutFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := d.write(path, []byte(`{"imageLayoutVersion":"`+specs.ImageLayoutVersion+`"}`)); err != nil {
		return err
	}
	if _, err := os.Stat(d.indexPath()); errors.Is(err, fs.ErrNotExist) {
		unlock, err := d.lock(context.Background(), true)
		if err != nil {
			return err
		}
		defer unlock()
		if _, err := os.Stat(d.indexPath()); errors.Is(err, fs.ErrNotExist) {
			return d.writeIndex(newIndex())
		}
	}
	return nil
}

// write writes a small file atomically.
func (d *Dir) write(path string, data []byte) error {
	return d.writeFrom(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// writeFrom writes a file atomically: what fails leaves nothing behind.
func (d *Dir) writeFrom(path string, fill func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(d.tmp(), "part-")
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return d.install(f, f.Name(), path)
}

// install gives a finished file its name; temp is the one that it has.
func (d *Dir) install(f *os.File, temp, path string) error {
	// The bytes before the name: after a power cut a name with nothing, or
	// zeros, behind it would be a blob that is corrupt.
	if err := f.Sync(); err != nil {
		return err
	}
	err := os.Rename(temp, path)
	if errors.Is(err, fs.ErrNotExist) { // the first key of its folder
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.Rename(temp, path)
		}
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path)) // the name itself
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some file systems can't
		return err
	}
	return nil
}

// lock locks the store against eviction and removal (shared), or for them
// (exclusive). The returned function may be called twice. Those who hold it do
// so for milliseconds, or for one copy of a blob.
func (d *Dir) lock(ctx context.Context, exclusive bool) (unlock func(), err error) {
	l := flock.New(filepath.Join(d.path, "lock"), flock.SetPermissions(0o644))
	try := l.TryRLockContext
	if exclusive {
		try = l.TryLockContext
	}
	if _, err := try(ctx, 5*time.Millisecond); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", l.Path(), err), l.Close())
	}
	return func() { l.Close() }, nil
}
