package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/internal/treecopy"
)

func TestWhatARunChanged(t *testing.T) {
	sandboxes(t, func(t *testing.T, b testBox) {
		t.Parallel()
		for _, tt := range runCases {
			t.Run(tt.name, func(t *testing.T) {
				if tt.rootOnly && !b.owners {
					t.Skip("not in a user namespace")
				}
				if tt.isolated && b.direct {
					t.Skip("not in place")
				}
				v, root := b.view(t)
				want := tt.want
				if tt.more != "" && b.ctimeOnly && !(tt.xattr && inGVisor()) {
					want = tt.more
				}
				if inGVisor() {
					want, _, _ = strings.Cut(want, " data [")
				}
				if tt.rootFits && os.Geteuid() != 0 {
					if got := trim(runAll(t, v, tt.scripts, func([]byte) {})); got != trim(want) {
						t.Errorf("got:\n%swant:\n%s", got, trim(want))
					}
					return
				}
				base, view := check(t, v, root, b.owners, tt.scripts, want)
				if base != view && !tt.partly {
					t.Errorf("- base and snapshots, + view\n%s", difference(base, view))
				}
			})
		}
	})
}

// TestEqualSnapshots packs the same changes, made in each of the sandboxes, to
// the same bytes.
func TestEqualSnapshots(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	packed := make(map[string]map[string][]byte)
	var order []string
	sandboxes(t, func(t *testing.T, b testBox) {
		if b.name == "inplace by ctime" && b.direct {
			order = append(order, b.name)
		} else {
			order = append([]string{b.name}, order...)
		}
		packed[b.name] = make(map[string][]byte)
		for _, tt := range runCases {
			if tt.rootOnly && !b.owners || tt.isolated || tt.more != "" && b.ctimeOnly {
				continue
			}
			v, _ := b.view(t)
			scripts := append([]string(nil), tt.scripts...)
			// The time of day is no part of what is compared.
			for i := range scripts {
				scripts[i] += "\nsettle /w; test ! -d /opt || settle /opt"
			}
			runAll(t, v, scripts, func(blob []byte) { packed[b.name][tt.name] = blob })
		}
	})
	for _, tt := range runCases {
		var first []byte
		of := ""
		for _, name := range order {
			blob, ok := packed[name][tt.name]
			switch {
			case !ok:
			case first == nil:
				first, of = blob, name
			case !bytes.Equal(first, blob):
				t.Errorf("%s: %s\n%s%s\n%s", tt.name, of, lines(t, first), name, lines(t, blob))
			}
		}
	}
}

func lines(t *testing.T, blob []byte) string {
	return text(t, snapshot.Read(bytes.NewReader(blob)))
}

// check runs the scripts and compares the last one's changes. It returns the
// base with the snapshots applied, and the tree that the view shows: they are
// the same, which is what all this is for.
func check(t *testing.T, v sandbox.View, root string, owners bool, scripts []string, want string) (base, seen string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"w", "tmp"} {
		to := filepath.Join(dir, d)
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := treecopy.Tree(context.Background(), filepath.Join(root, d), to, nil); err != nil {
			t.Fatal(err)
		}
	}
	got := runAll(t, v, scripts, func(blob []byte) { unpackBlob(t, dir, blob) })
	if trim(got) != trim(want) {
		t.Errorf("got:\n%swant:\n%s", got, trim(want))
	}
	env := "OWNERS="
	if owners {
		env = "OWNERS=yes"
	}
	changes, seen, err := try(t, v, sandbox.Command{Argv: []string{"manifest", "/w"}, Env: append(testEnv, env)})
	if err != nil {
		t.Fatal(err, seen)
	}
	if changes != "" {
		t.Errorf("reading changed:\n%s", changes)
	}
	if base, err = manifest(filepath.Join(dir, "w"), owners); err != nil {
		t.Fatal(err)
	}
	return base, seen
}

// runAll runs the scripts in /w, hands each one's changes on, packed, and
// returns those of the last as text.
func runAll(t *testing.T, v sandbox.View, scripts []string, each func(blob []byte)) (last string) {
	t.Helper()
	for _, script := range scripts {
		ch, err := v.Run(context.Background(), sandbox.Command{
			Argv: []string{"/bin/sh", "-ec", script}, Env: testEnv, Dir: "/w", Output: &testOutput{t}, Timeout: time.Minute})
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		last = text(t, ch)
		each(pack(t, ch))
	}
	return last
}

func difference(a, b string) string {
	var d strings.Builder
	for l := range strings.Lines(a) {
		if !strings.Contains(b, l) {
			d.WriteString("- " + l)
		}
	}
	for l := range strings.Lines(b) {
		if !strings.Contains(a, l) {
			d.WriteString("+ " + l)
		}
	}
	return d.String()
}

type testOutput struct{ t *testing.T }

func (o *testOutput) Write(p []byte) (int, error) {
	o.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}

// TestTopLevelDirectories applies what becomes of a directory of the root that a
// user namespace shows by an overlay of its own.
func TestTopLevelDirectories(t *testing.T) {
	from, _ := fixture(t)
	root := t.TempDir()
	err := errors.Join(copyRoot(from, root), os.MkdirAll(filepath.Join(root, "app/a/b"), 0o755),
		os.WriteFile(filepath.Join(root, "app/a/old"), nil, 0o644), os.Mkdir(filepath.Join(root, "other"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	const list = `for f in /app /app/a /app/a/* /other; do if [ -h $f ]; then echo link $f; elif [ -f $f ]; then cat $f; elif [ -d $f ]; then echo $f; fi; done`
	for _, tt := range []struct {
		name    string
		changes []*snapshot.Entry
		want    string // of list
		run     string
		changed string
	}{
		{"deleted", []*snapshot.Entry{{Path: "app", Kind: snapshot.Delete}}, "/other\n", "mkdir -p /app/a; echo 1 >/app/a/new", "dir app 0755\ndir app/a 0755\nfile app/a/new 0644 2\n"},
		{"a file instead", []*snapshot.Entry{{Path: "app", Kind: snapshot.File, Mode: 0o644, Size: 5, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("file\n")), nil }}}, "file\n/other\n", "rm /app; mkdir /app", "dir app 0755\n"},
		{"a link instead", []*snapshot.Entry{{Path: "app", Kind: snapshot.Symlink, Target: "w", Mode: 0o777}}, "link /app\n/other\n", "rm /app", "delete app\n"},
		{"described", []*snapshot.Entry{{Path: "app", Kind: snapshot.Dir, Mode: 0o700}, {Path: "app/a", Kind: snapshot.Delete}}, "/app\n/other\n", "mkdir /app/a", "dir app 0700\ndir app/a 0755\n"},
	} {
		modes(t, func(t *testing.T, s *testOverlay) {
			t.Run(tt.name, func(t *testing.T) {
				v := newView(t, newOverlay(t, s.rooted, sandbox.Options{Root: root}))
				if err := v.Apply(t.Context(), bytes.NewReader(pack(t, snapshot.Changes(func(yield func(*snapshot.Entry, error) bool) {
					for _, e := range tt.changes {
						if !yield(e, nil) {
							return
						}
					}
				}))), record.Placement{}); err != nil {
					t.Fatal(err)
				}
				clone, err := v.Clone(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer clone.Close()
				for _, v := range []sandbox.View{v, clone} {
					if changes, seen := sh(t, v, list); changes != "" || seen != tt.want {
						t.Errorf("saw\n%swant\n%schanged %s", seen, tt.want, changes)
					}
					if changes, _ := sh(t, v, tt.run); changes != tt.changed {
						t.Errorf("%s:\n%swant\n%s", tt.run, changes, tt.changed)
					}
				}
			})
		})
	}
}
