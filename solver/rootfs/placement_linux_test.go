package rootfs

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// A file does not replace a directory where its step's placement forbids it: not in
// a view, and not in a root, which then is as it was.
func TestPlacementPreservesDirectories(t *testing.T) {
	copied := record.Placement{ProtectDirs: true, File: "a"}
	tests := []struct {
		name    string
		before  string
		at      record.Placement
		entries []*snapshot.Entry
		dir     string // that stays; "" where all is applied
	}{
		{"a file over a directory", "mkdir a; echo > a/keep", copied, []*snapshot.Entry{file("a", "new")}, "a"},
		{"over an empty one", "mkdir a", copied, []*snapshot.Entry{file("a", "new")}, "a"},
		{"over a link to one", "mkdir t; echo > t/keep; ln -s t a", copied, []*snapshot.Entry{file("a", "new")}, "a"},
		{"over an absolute link to one", "mkdir t; ln -s /t a", copied, []*snapshot.Entry{file("a", "new")}, "a"},
		{"over a link to a file", "echo keep > t; ln -s t a", copied, []*snapshot.Entry{file("a", "new")}, ""},
		{"over a link to nothing", "ln -s t a", copied, []*snapshot.Entry{file("a", "new")}, ""},
		{"over a file", "echo > a", copied, []*snapshot.Entry{file("a", "new")}, ""},
		{"a file of a tree over a directory", "mkdir -p b/c/d; echo > b/c/d/keep", copied, []*snapshot.Entry{dirEntry("b"), file("b/a", "x"), file("b/c", "x")}, "b/c"},
		{"a link of a tree over a directory", "mkdir -p b/c", copied, []*snapshot.Entry{symlink("b/c", "d")}, "b/c"},
		{"a file of a tree over a link to a directory", "mkdir -p b/t; ln -s t b/c", copied, []*snapshot.Entry{file("b/c", "x")}, ""},
		{"a directory over a directory", "mkdir a; echo > a/keep", copied, []*snapshot.Entry{dirEntry("a"), file("a/b", "x")}, ""},
		{"one file alone is bound", "mkdir a b", record.Placement{File: "a"}, []*snapshot.Entry{file("b", "x")}, ""},
		{"and is the one", "mkdir a b", record.Placement{File: "a"}, []*snapshot.Entry{file("a", "x")}, "a"},
		{"nothing is bound", "mkdir a; echo > a/x", record.Placement{}, []*snapshot.Entry{file("a", "x")}, ""},
	}
	for _, tt := range tests {
		check := func(err error) {
			t.Helper()
			var dir *unpack.DirError
			if errors.As(err, &dir) != (tt.dir != "") || dir != nil && dir.Path != tt.dir || dir == nil && err != nil {
				t.Errorf("%s: error %v, want one about %q", tt.name, err, tt.dir)
			}
		}
		both(t, func(t *testing.T, opt unpack.Options) {
			dir := t.TempDir()
			shell(t, dir, tt.before)
			opt.Placement = tt.at
			_, err := unpack.Unpack(t.Context(), dir, stream(tt.entries...), opt)
			check(err)
		})
		dir := t.TempDir()
		shell(t, dir, "mkdir root; cd root; "+tt.before)
		l := lockOf(t, dir)
		root := filepath.Join(dir, "root")
		own := func(p string) bool { return p == "var" }
		was := treetest.Describe(t, root, own)
		s := step("one")
		s.Placement = tt.at
		_, err := l.Apply(t.Context(), s, stream(tt.entries...))
		check(err)
		if err := l.Unlock(); err != nil {
			t.Fatal(err)
		}
		if now := treetest.Describe(t, root, own); now != was {
			t.Errorf("%s: the root was\n%s\nand is\n%s", tt.name, was, now)
		}
	}
}
