package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/internal/safefile"
)

// Names in the store, by which its parts are opened.
const (
	tmpName      = "tmp"
	keysName     = "keys"
	keysLockName = "keys/lock"
	blobsName    = "blobs/sha256"
	lockName     = "lock"
	writtenName  = "written"
)

// Bounds of what is read: a store may be another user's. What is larger is not
// written either.
const (
	maxKeyFile  = 4 << 20
	maxManifest = 16 << 20
	maxIndex    = 16 << 20
	maxWritten  = 64 << 20
)

// root opens the directory. It is closed after each operation, since another
// process may remove the directory, and make it again, at any time.
func (d *Dir) root() (*os.Root, error) { return safefile.OpenDir(d.path) }

// missing reports whether an error says that there is no store: not even a
// directory, or something else in its place.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) && !errors.Is(err, safefile.ErrNotRegular)
}

// init makes the directory a store, and opens it.
func (d *Dir) init(ctx context.Context) (_ *os.Root, err error) {
	mode := fs.FileMode(0o755)
	if d.private {
		mode = 0o700
	}
	root, err := safefile.MakeDir(d.path, mode)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	if err := safefile.MkdirAll(root, tmpName, 0o755); err != nil {
		return nil, err
	}
	// What killed processes left counts for no bound: it must go while the
	// store is far from full, and where the rest of it is damaged, too.
	d.sweepOnce.Do(func() {
		if _, err := safefile.Sweep(root, tmpName, isTemp); err != nil {
			slog.Warn("files that a killed process left in the store stay there", "path", d.path, "err", err)
		}
	})
	for _, dir := range []string{keysName, blobsName} {
		if err := safefile.MkdirAll(root, dir, 0o755); err != nil {
			return nil, err
		}
	}
	if exists(root, specs.ImageLayoutFile) && exists(root, specs.ImageIndexFile) && exists(root, writtenName) {
		return root, nil
	}
	unlock, err := d.lock(ctx, root, true)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !exists(root, specs.ImageLayoutFile) {
		if err := d.write(root, specs.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+specs.ImageLayoutVersion+`"}`)); err != nil {
			return nil, err
		}
	}
	if !exists(root, specs.ImageIndexFile) {
		if err := d.replaceIndex(root, newIndex()); err != nil {
			return nil, err
		}
	}
	if !exists(root, writtenName) {
		return root, d.recordAll(root)
	}
	return root, nil
}

// exists reports whether there is something of that name.
func exists(root *os.Root, name string) bool {
	_, err := root.Lstat(name)
	return err == nil
}

// list returns what is in a directory of the store; nothing if it is not there.
func list(root *os.Root, name string) ([]fs.DirEntry, error) {
	dir, err := safefile.OpenDirIn(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return fs.ReadDir(dir.FS(), ".")
}

// The prefixes of names in tmp/.
const (
	spoolPrefix = "blob-" // what Create made
	partPrefix  = "part-" // what is being written
)

// isTemp reports whether a name in tmp/ is one that clayer gives.
func isTemp(name string) bool {
	return strings.HasPrefix(name, spoolPrefix) || strings.HasPrefix(name, partPrefix)
}

// write writes a small file atomically.
func (d *Dir) write(root *os.Root, name string, data []byte) error {
	_, err := d.writeFrom(root, name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	return err
}

// writeFrom writes a file atomically: what fails leaves no file.
func (d *Dir) writeFrom(root *os.Root, name string, fill func(io.Writer) error) (_ *stamp, err error) {
	f, temp, err := safefile.CreateTemp(root, path.Join(tmpName, partPrefix))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			_ = root.Remove(temp)
		}
	}()
	if err := fill(f); err != nil {
		return nil, err
	}
	if err := f.Chmod(0o644); err != nil {
		return nil, err
	}
	return d.install(root, f, temp, name)
}

// install gives a finished file its name; temp is the one that it has.
func (d *Dir) install(root *os.Root, f *os.File, temp, name string) (*stamp, error) {
	// The bytes before the name: after a power cut a name with nothing, or
	// zeros, for it would be a blob that is corrupt.
	durable := d.isDurable()
	if durable {
		if err := f.Sync(); err != nil {
			return nil, err
		}
	}
	err := root.Rename(temp, name)
	if errors.Is(err, fs.ErrNotExist) { // the first key of its directory
		if err = safefile.MkdirAll(root, path.Dir(name), 0o755); err == nil {
			err = root.Rename(temp, name)
		}
	}
	if err == nil && durable {
		err = syncDir(root, path.Dir(name)) // the name itself
	}
	if err != nil {
		return nil, err
	}
	return stampOf(f)
}

// isDurable reports whether what is written has to outlive a loss of power at once. If
// not, Settle is due.
func (d *Dir) isDurable() bool {
	d.decide.Do(func() { d.durability, _ = d.policy.Of(d.path) })
	if d.durability == durability.Durable {
		return true
	}
	d.unsynced.Store(true)
	return false
}

// Settle has all that was written outlive a loss of power, where that is not so by now: a
// host may copy the disk when the command has ended.
func (d *Dir) Settle() error {
	if !d.unsynced.Swap(false) || d.durability == durability.NoSync {
		return nil
	}
	root, err := d.root()
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return syncAll(f)
}

func syncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
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
func (d *Dir) lock(ctx context.Context, root *os.Root, exclusive bool) (unlock func(), err error) {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	f, err := safefile.Lock(ctx, root, lockName, how)
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	return func() { f.Close() }, nil
}
