package rootfs

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/rounds"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// What is done to a path takes a bounded number of system calls, however deep the
// path is, also where the kernel takes no more than one of its names in a call.
func TestCallsDoNotGrowWithTheDepth(t *testing.T) {
	nested := func(levels int) (es []*snapshot.Entry) {
		for i := 1; i <= levels; i++ {
			dir := strings.Repeat("d/", i)
			d := dirEntry(dir[:len(dir)-1])
			d.Implied = true
			es = append(es, d, file(dir+"f", "x"))
		}
		return es
	}
	deepest := nested(2500)[2*2500-1:]
	for _, tt := range []struct {
		name     string
		openat2  bool
		levels   int
		entries  []*snapshot.Entry
		perLevel int // some calls for the file, the directory and its time each
	}{
		{"a file", true, 2500, deepest, 40},
		{"a file in each directory, a name in a call", false, 600, nested(600), 200},
		{"a file in each directory", true, 2500, nested(2500), 40},
		{"a file, a name in a call", false, 2500, deepest, 200},
	}[:rounds.Of(2, 2, 4)] {
		t.Run(tt.name, func(t *testing.T) {
			if tt.openat2 && !inroot.HasOpenat2() {
				t.Skip("this kernel has no openat2")
			}
			for op, calls := range deepCalls(t, tt.openat2, tt.entries) {
				if calls > tt.perLevel*tt.levels {
					t.Errorf("%s: %d calls for %d levels", op, calls, tt.levels)
				}
			}
		})
	}
}

// deepCalls applies a stream, looks at what it made, and rolls it back twice, and
// returns how many system calls each took.
func deepCalls(t *testing.T, openat2 bool, es []*snapshot.Entry) map[string]int {
	t.Helper()
	dir := fastDir(t)
	shell(t, dir, "mkdir -p root/var/lib")
	r, err := Open(filepath.Join(dir, "root"), Options{sys: inroot.Sys{Hook: new(seam), WithoutOpenat2: !openat2}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	calls := make(map[string]int)
	count := func(op string, f func() error) {
		t.Helper()
		n := 0
		err := hooked(l.root, func(string, bool) error { n++; return nil }, f)
		if err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		calls[op] = n
	}
	apply := func() error {
		res, err := l.Apply(t.Context(), step("1"), stream(es...))
		if err == nil && len(res.Problems) > 0 {
			err = res.Problems[0].Err
		}
		return err
	}
	count("apply", apply)
	count("rollback", l.Rollback)
	if err := apply(); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	count("verify", func() error {
		states, err := drift.Verify(t.Context(), l.root.Dir(), l.root.StateDir(), nil)
		for _, s := range states {
			if s.State != drift.AsApplied {
				return fmt.Errorf("%d bytes: %v", len(s.Path), s.State)
			}
		}
		return err
	})
	count("diff", func() error {
		_, err := drift.Diff(t.Context(), l.root.Dir(), l.root.StateDir(), nil)
		return err
	})
	undo := func() error {
		undone, err := l.Undo(t.Context(), 0, false)
		if err == nil && len(undone.Preserved)+len(undone.Problems) > 0 {
			err = fmt.Errorf("kept %d, problems %v", len(undone.Preserved), undone.Problems)
		}
		return err
	}
	count("undo", undo)
	count("rollback of undo", l.Rollback)
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit("test", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	return calls
}
