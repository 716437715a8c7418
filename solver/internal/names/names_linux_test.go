package names_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// drawPath returns a path of few names, so that they meet.
func drawPath(t *rapid.T) string {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3).Draw(t, "path")
	return strings.Join(parts, "/")
}

// drawChanges returns a valid stream that few directories are in.
func drawChanges(t *rapid.T) []*snapshot.Entry {
	kinds := map[string]*snapshot.Entry{}
	for range rapid.IntRange(1, 5).Draw(t, "entries") {
		p := drawPath(t)
		e := &snapshot.Entry{Path: p, Mode: 0o755}
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			e.Kind = snapshot.Dir
		case 1:
			e.Kind, e.Implied = snapshot.Dir, true
		case 2:
			e.Kind = snapshot.Delete
		case 3:
			e.Kind = snapshot.Symlink
			e.Target = rapid.SampledFrom([]string{"a", "b", "/a/b", "../c", "..", "/", "nowhere", "b/c"}).Draw(t, "target")
		default:
			e.Kind = snapshot.File
		}
		kinds[p] = e
	}
	// What is no directory has nothing below it.
	for p := range kinds {
		for q, e := range kinds {
			if strings.HasPrefix(p, q+"/") && e.Kind != snapshot.Dir {
				delete(kinds, p)
			}
		}
	}
	var list []*snapshot.Entry
	for _, depth := range []int{0, 1, 2} {
		for _, top := range []string{"a", "b", "c"} {
			for _, p := range slices.Sorted(maps.Keys(kinds)) {
				e := kinds[p]
				if strings.Count(p, "/") == depth && strings.HasPrefix(p, top) {
					list = append(list, e)
				}
			}
		}
	}
	return list
}

func stream(list []*snapshot.Entry) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// TestNamesAreThoseOfTheKernel compares a view of an old root, and changes, with the root
// after the changes, where the kernel resolves names.
func TestNamesAreThoseOfTheKernel(t *testing.T) {
	top := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		root, old := filepath.Join(top, fmt.Sprint(n, "new")), filepath.Join(top, fmt.Sprint(n, "old"))
		base := drawChanges(t)
		for _, dir := range []string{root, old} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := unpack.Unpack(context.Background(), dir, stream(base), unpack.Options{}); err != nil {
				t.Skip(err)
			}
		}
		view := names.New(old, "")
		for range rapid.IntRange(1, 3).Draw(t, "steps") {
			changes := slices.DeleteFunc(drawChanges(t), func(e *snapshot.Entry) bool {
				// No step writes through a link that it changes.
				real, _, err := view.Resolve(path.Dir(e.Path))
				return err != nil || path.Clean(real) != path.Dir(e.Path)
			})
			res, err := unpack.Unpack(context.Background(), root, stream(changes), unpack.Options{})
			if err != nil || len(res.Problems) > 0 {
				t.Skip(err) // it goes through a file, say
			}
			if err := view.Add(stream(changes)); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			p := drawPath(t)
			real, kind, err := view.Resolve("/" + p)
			wantKind, wantErr := kernel(t, root, p)
			if kind != wantKind || (err != nil) != (wantErr != nil) || wantErr != nil && !errors.Is(err, wantErr) {
				t.Fatalf("%s: %q kind %d, %v; the kernel has kind %d, %v", p, real, kind, err, wantKind, wantErr)
			}
			if err == nil && kind != names.Missing {
				a, b := stat(t, root, p), stat(t, root, real)
				if a.Ino != b.Ino {
					t.Fatalf("%s leads to %q, which is another file", p, real)
				}
			}
		}
	})
}

func stat(t *rapid.T, root, p string) unix.Stat_t {
	var st unix.Stat_t
	fd, err := open(root, p)
	if err == nil {
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
	}
	if err != nil {
		t.Fatal(p, err)
	}
	return st
}

func open(root, p string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	if p == "" {
		p = "."
	}
	for {
		fd, err := unix.Openat2(dir, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if !errors.Is(err, unix.EAGAIN) { // something was renamed meanwhile, anywhere
			return fd, err
		}
	}
}

// kernel returns what the kernel finds at a path inside of the root.
func kernel(t *rapid.T, root, p string) (names.Kind, error) {
	fd, err := open(root, p)
	switch {
	case errors.Is(err, unix.ENOENT):
		return names.Missing, nil
	case errors.Is(err, unix.ELOOP):
		return names.Missing, unix.ELOOP
	case errors.Is(err, unix.ENOTDIR):
		return names.File, unix.ENOTDIR
	case err != nil:
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return names.Dir, nil
	}
	return names.File, nil
}

// TestContents reads files that changes have, or that the root has under another name.
func TestContents(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(root, "srv"), 0o755), os.WriteFile(filepath.Join(root, "srv/own"), []byte("own"), 0o644)); err != nil {
		t.Fatal(err)
	}
	file := func(p, content string) *snapshot.Entry {
		return &snapshot.Entry{Path: p, Kind: snapshot.File, Size: int64(len(content)), Content: []byte(content)}
	}
	view := names.New(root, "")
	for _, step := range [][]*snapshot.Entry{
		{file("srv/new", "new"), {Path: "srv/same", Kind: snapshot.Link, Target: "srv/new"}},
		{{Path: "l", Kind: snapshot.Symlink, Target: "srv"}, {Path: "second", Kind: snapshot.Link, Target: "srv/own"}},
		{file("l/through", "through"), {Path: "srv/own", Kind: snapshot.Delete}, file("srv/new", "newer"), {Path: "pipe", Kind: snapshot.Fifo}},
		{{Path: "to", Kind: snapshot.Symlink, Target: "l/through"}},
	} {
		if err := view.Add(stream(step)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"srv/new": "newer", "l/new": "newer", "srv/same": "new", "second": "own", "srv/through": "through", "to": "through",
	} {
		if got, err := view.ReadFile(name); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"srv/own", "srv", "none", "pipe"} {
		if got, err := view.ReadFile(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
