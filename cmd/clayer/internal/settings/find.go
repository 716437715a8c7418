package settings

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/safefile"
)

// FindProject reads the file of the project that a directory is in; nil if there is none.
// It is the nearest clayer.toml from the directory up to the root of its Git repository; up
// to the working directory where it is in none and below that; else its own.
//
// Nothing above a directory is looked at that belongs to somebody else than the user, root
// and the owner of the first: in a directory like /tmp, others could have prepared it. For
// the same reason the file is one of theirs, and no link.
func FindProject(start string) (*File, error) {
	start, err := filepath.Abs(start)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(start); err == nil {
		start = real
	}
	owner, ok := ownerOf(start)
	if !ok {
		return nil, nil
	}
	ours := func(uid uint32) bool { return uid == owner || safefile.Trusted(uid) }
	top := topOf(start, ours)
	for dir := start; ; dir = filepath.Dir(dir) {
		f, err := readProject(dir, ours)
		if f != nil || err != nil {
			return f, err
		}
		if dir == top || dir == filepath.Dir(dir) {
			return nil, nil
		}
	}
}

// topOf returns the last directory that is looked into.
func topOf(start string, ours func(uint32) bool) string {
	here, _ := os.Getwd()
	if real, err := filepath.EvalSymlinks(here); err == nil {
		here = real
	}
	top := start
	for dir := start; ; dir = filepath.Dir(dir) {
		if uid, ok := ownerOf(dir); !ok || !ours(uid) {
			return top
		}
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil { // a directory, or a worktree's file
			return dir
		}
		if dir == here {
			top = dir
		}
		if dir == filepath.Dir(dir) {
			return top
		}
	}
}

func ownerOf(dir string) (uid uint32, ok bool) {
	var st unix.Stat_t
	err := unix.Lstat(dir, &st)
	return st.Uid, err == nil
}

// readProject reads the file in a directory; nil if there is none, or it is somebody else's.
func readProject(dir string, ours func(uint32) bool) (*File, error) {
	f := &File{Path: shortest(filepath.Join(dir, FileName)), Dir: dir, Project: true}
	d, err := os.Open(dir)
	if err != nil {
		return nil, nil // what cannot be read has none for this user
	}
	defer d.Close()
	file, err := safefile.OpenAt(d, FileName, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var st unix.Stat_t
	if errors.Is(err, fs.ErrPermission) && unix.Fstatat(int(d.Fd()), FileName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && !ours(st.Uid) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, usage.Errorf("%s: %w", f.Path, fs.ErrPermission)
	}
	if err != nil {
		return nil, errhint.With(usage.Errorf("%s: %w", f.Path, errors.Unwrap(err)), "a project's file is a regular one, and no link is followed")
	}
	defer file.Close()
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || !ours(st.Uid) {
		return nil, nil
	}
	data, err := safefile.ReadAll(file, largest)
	if err != nil {
		return nil, usage.Errorf("%s: %w", f.Path, err)
	}
	return parse(f, data)
}

// Outside returns a Containerfile that is not in the project, wherever its name is; "" if
// all are. What is piped in is in none.
func (f *File) Outside(all []*frontend.File) string {
	if f == nil {
		return ""
	}
	for _, c := range all {
		real, err := filepath.EvalSymlinks(c.Path)
		if err == nil {
			real, err = filepath.Abs(real)
		}
		if err != nil || !strings.HasPrefix(real, strings.TrimSuffix(f.Dir, "/")+"/") {
			return c.Path
		}
	}
	return ""
}

// shortest returns a path as it is shortest from the working directory.
func shortest(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(here); err == nil {
		here = real
	}
	rel, err := filepath.Rel(here, path)
	if err != nil || len(rel) > len(path) || strings.HasPrefix(rel, "../../../") {
		return path
	}
	return rel
}
