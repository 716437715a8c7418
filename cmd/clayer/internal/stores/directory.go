package stores

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/safefile"
)

// temp returns the directory for blobs that are being read; "" for the system's.
func (o *Opener) temp() (string, error) {
	if o.ReadOnly {
		return "", nil
	}
	path, err := o.CacheDirectory()
	if path == "" || err != nil {
		return "", err
	}
	return filepath.Join(path, "tmp"), nil
}

// CacheDirectory returns the directory for snapshots, downloads and cache mounts;
// "" if there is none. It is looked for once.
//
// A directory that --cache-dir names is used, whoever owns it: its contents are
// verified. Nobody has named the default one: another user may have created it, for
// clayer to read from or to write through. That one is reported, and not used.
func (o *Opener) CacheDirectory() (path string, err error) {
	if o.located {
		return o.directory, nil
	}
	if o.CacheDir != "" {
		path, err = o.namedDirectory()
	} else {
		path, err = o.defaultDirectory()
	}
	if err != nil {
		return "", err
	}
	o.located, o.directory = true, path
	return path, nil
}

// namedDirectory returns the directory of --cache-dir, which may be a link.
func (o *Opener) namedDirectory() (string, error) {
	path, err := filepath.Abs(o.CacheDir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		o.Notices.StoreFailed("dir", fmt.Errorf("%s: not a directory", path))
		return "", nil
	}
	return path, nil
}

func (o *Opener) defaultDirectory() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", usage.Errorf("cannot locate the cache directory: %w (use --cache-dir)", err)
	}
	path := filepath.Join(base, "clayer")
	if o.create && safefile.MakeAll(base, 0o755) == nil {
		// Create it now rather than at the first write, so that no other user can be
		// first. It is private: a snapshot holds what the root hides from other users.
		_ = safefile.MakeAll(path, 0o700) // the first write reports what is wrong
	}
	dir, err := safefile.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	if err == nil {
		defer dir.Close()
		err = safefile.CheckDir(dir)
	}
	if err != nil {
		o.Notices.StoreFailed("dir", fmt.Errorf("%w; the cache directory is not used (--cache-dir DIR uses DIR, whoever owns it)", err))
		return "", nil
	}
	return path, nil
}
