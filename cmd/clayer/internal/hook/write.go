package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/safefile"
)

// Write writes the files under the working directory, and reports each on errs. Text
// without a path, for the user to copy, goes to out.
func Write(ctx context.Context, files []File, out, errs io.Writer) error {
	var failed error
	for _, f := range files {
		if f.Path == "" {
			if err := f.print(out, errs); err != nil {
				return err
			}
			continue
		}
		changed, err := f.Write(ctx, ".")
		switch {
		case err != nil:
			failed = errors.Join(failed, err)
		case changed:
			fmt.Fprintf(errs, "clayer: wrote %s\n", f.Path)
		default:
			fmt.Fprintf(errs, "clayer: %s is as it should be\n", f.Path)
		}
	}
	if failed != nil {
		return usage.Error{Err: errors.New(strings.ReplaceAll(failed.Error(), "\n", "\nclayer: "))}
	}
	return nil
}

// Print prints on out what Write would write.
func Print(files []File, out, errs io.Writer) error {
	for _, f := range files {
		if len(files) > 1 && f.Path != "" {
			fmt.Fprintf(out, "==> %s <==\n", f.Path)
		}
		if err := f.print(out, errs); err != nil {
			return err
		}
	}
	return nil
}

func (f File) print(out, errs io.Writer) error {
	if f.Note != "" {
		fmt.Fprintf(errs, "clayer: %s:\n", f.Note)
	}
	text, err := f.Preview(".")
	if err != nil {
		return usage.Error{Err: err}
	}
	_, err = out.Write(text)
	return err
}

// Write writes the file under dir. A file that is as it should be is left alone;
// one that a user may have changed is only replaced if it is a boot script, or
// what it holds stays. It reports whether anything was written.
func (f File) Write(ctx context.Context, dir string) (bool, error) {
	path := f.in(dir)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	isNew := false
	changed, err := edit.Update(ctx, path, func(old []byte) ([]byte, error) {
		isNew = old == nil
		if old == nil || f.merge == nil && bytes.Contains(old, []byte("clayer init")) {
			return f.Text, nil
		}
		if f.merge == nil {
			return nil, fmt.Errorf("%w, and not of clayer init", fs.ErrExist)
		}
		return f.merge(old)
	})
	if err == nil && isNew {
		err = os.Chmod(path, f.Mode)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", f.Path, err)
	}
	return changed, err
}

// in returns where the file is, relative to dir if its path is.
func (f File) in(dir string) string {
	if path := filepath.FromSlash(f.Path); filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, filepath.FromSlash(f.Path))
}

// Preview returns what Write would make of the file under dir; where it may not
// change what is there, Text.
func (f File) Preview(dir string) ([]byte, error) {
	if f.merge == nil || f.Path == "" {
		return f.Text, nil
	}
	old, err := safefile.Read(f.in(dir), frontend.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return f.Text, nil
	}
	if err == nil {
		old, err = f.merge(old)
	}
	if errors.Is(err, ErrByHand) {
		return f.Text, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return old, nil
}
