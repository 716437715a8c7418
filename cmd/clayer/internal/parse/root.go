package parse

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/errhint"
)

// Root reads --root and --dest: at most one of them is given. It returns them as
// absolute paths.
func Root(root, dest string) (absRoot, absDest string, err error) {
	switch {
	case root != "" && dest != "":
		return "", "", usage.Errorf("--root and --dest don't go together")
	case root != "":
		absRoot, err = existingRoot(root)
	case dest != "":
		absDest, err = destination(dest)
	}
	return absRoot, absDest, err
}

func existingRoot(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", errhint.With(usage.Errorf("--root %s: %w", abs, pathless(err)), "--root changes an existing root file system, --dest creates a directory")
	}
	if !info.IsDir() {
		return "", usage.Errorf("--root %s: not a directory", abs)
	}
	return abs, nil
}

// destination returns the absolute path of a directory that may be created.
func destination(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(abs); err == nil && !info.IsDir() {
		return "", usage.Errorf("--dest %s: not a directory", abs)
	}
	if abs == "/" {
		return "", usage.Errorf("--dest /: give a directory of its own, or no --dest to change / itself")
	}
	return abs, nil
}

// pathless is the error of a system call without its name and path, for a text
// that has named the path.
func pathless(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
