package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/clayer/clayer/internal/safefile"
)

// folder returns the directory for snapshots, downloads and cache mounts; "" for
// none. It is looked for once.
//
// One that --cache-dir names is used, whoever it belongs to: what is in it is
// verified. The default one nobody has named: another user may have made it, to be
// found there, or to be written through. That one is left unused, and t is told.
func (f *storeFlags) folder(t tell) (path string, err error) {
	if f.found {
		return f.dirFound, nil
	}
	if f.cacheDir != "" {
		path, err = f.namedDir(t)
	} else {
		path, err = f.defaultDir(t)
	}
	if err != nil {
		return "", err
	}
	f.found, f.dirFound = true, path
	return path, nil
}

// namedDir returns the directory of --cache-dir, which may be a link.
func (f *storeFlags) namedDir(t tell) (string, error) {
	path, err := filepath.Abs(f.cacheDir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		t.failed("dir", fmt.Errorf("%s: not a directory", path))
		return "", nil
	}
	return path, nil
}

func (f *storeFlags) defaultDir(t tell) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", usagef("cannot locate the cache directory: %w (use --cache-dir)", err)
	}
	path := filepath.Join(base, "clayer")
	if f.makesDir && safefile.MakeAll(base, 0o755) == nil {
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
		t.failed("dir", fmt.Errorf("%w; the cache directory is left unused (--cache-dir DIR uses DIR, whoever it belongs to)", err))
		return "", nil
	}
	return path, nil
}

// temp returns the directory for blobs that are being read; "" for the system's.
func (f *storeFlags) temp(t tell) (string, error) {
	if f.readOnly {
		return "", nil
	}
	folder, err := f.folder(t)
	if folder == "" || err != nil {
		return "", err
	}
	return filepath.Join(folder, "tmp"), nil
}
