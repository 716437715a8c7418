package scratch

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/record"
)

// area is a root in a directory of the test, with some files of other programs.
func area(t *testing.T) (dir string, open func() *Scratch) {
	t.Helper()
	dir = t.TempDir()
	sh(t, dir, `mkdir -p tmp/dir var/lib/clayer; echo mine >tmp/x; echo own >tmp/dir/f; ln -s /etc tmp/etc`)
	return dir, func() *Scratch {
		state, err := record.DirIn(dir, filepath.Join(dir, "var/lib/clayer")).Open()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { state.Close() })
		s, err := Open(dir, state)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func sh(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// changes makes entries: "file PATH", "dir PATH", "link PATH TARGET", "symlink PATH TARGET",
// "delete PATH".
func changes(lines ...string) func() snapshot.Changes {
	return func() snapshot.Changes {
		return func(yield func(*snapshot.Entry, error) bool) {
			for _, l := range lines {
				w := append(strings.Fields(l), "")
				e := &snapshot.Entry{Path: w[1], Mode: 0o755, UID: os.Getuid(), GID: os.Getgid()}
				switch w[0] {
				case "file":
					e.Kind, e.Size = snapshot.File, 4
					e.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("step")), nil }
				case "dir":
					e.Kind = snapshot.Dir
				case "link":
					e.Kind, e.Target = snapshot.Link, w[2]
				case "symlink":
					e.Kind, e.Target = snapshot.Symlink, w[2]
				case "delete":
					e.Kind = snapshot.Delete
				default:
					yield(nil, fmt.Errorf("unknown %s", l))
					return
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

const untouched = "tmp\ntmp/dir\ntmp/dir/f\ntmp/etc\ntmp/x\nvar\nvar/lib\nvar/lib/clayer\n"

func TestPutAndRemove(t *testing.T) {
	dir, open := area(t)
	s := open()
	put := func(lines ...string) {
		t.Helper()
		if err := s.Put(context.Background(), changes(lines...)); err != nil {
			t.Fatal(err)
		}
	}
	put("file tmp/x", "dir tmp/d", "file tmp/d/f", "link tmp/d/g tmp/d/f", "delete tmp/dir", "file var/tmp/v", "file elsewhere")
	if got := sh(t, dir, `cat tmp/x tmp/d/g tmp/dir/f var/tmp/v; ! test -e elsewhere; stat -c %a var/tmp`); got != "stepstepown\nstep1777\n" {
		t.Errorf("put: %q", got)
	}
	put("symlink tmp/d/l ../other")
	put("symlink tmp/d/l .")
	put("file tmp/d/l/through")
	sh(t, dir, `rm tmp/d/through`)
	put("delete tmp/d/f", "delete tmp/x")
	sh(t, dir, `! test -e tmp/x; ! test -e tmp/d/f; mkdir -p tmp/ran/d; chmod 0 tmp/ran/d tmp/d; echo other >tmp/other`)
	if err := s.Hold([]string{"tmp/ran"}); err != nil {
		t.Fatal(err)
	}
	// The command is killed: the next one removes all that is noted.
	if err := open().Remove(); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, dir, `cat tmp/x tmp/other; rm tmp/other; find tmp var | sort`); got != "mine\nother\n"+untouched {
		t.Errorf("removed:\n%s", got)
	}
	if err := open().Remove(); err != nil {
		t.Errorf("again: %v", err)
	}
}

// What a step, or another user, has put into /tmp leads nowhere.
func TestLinksLeadNowhere(t *testing.T) {
	for _, lines := range [][]string{
		{"file tmp/etc/passwd"},
		{"symlink tmp/l ../..", "file tmp/l/out"},
		{"symlink tmp/l /", "file tmp/l/out"},
		{"file tmp/../out"},
		{"file tmp/a/../../out"},
		{"symlink tmp/l .", "file tmp/l/dir/f"},
		{"symlink tmp/l l", "file tmp/l/f"},
		{"link tmp/l var/lib/clayer/scratch.json"},
	} {
		dir, open := area(t)
		s := open()
		var err error
		for _, l := range lines { // each in a snapshot of its own
			err = s.Put(context.Background(), changes(l))
		}
		if rerr := s.Remove(); rerr != nil {
			t.Errorf("%q: %v", lines, rerr)
		}
		if got := sh(t, dir, `find tmp var | sort; ls`); got != untouched+"tmp\nvar\n" {
			t.Errorf("%q: error %v:\n%s", lines, err, got)
		}
	}
	dir, open := area(t)
	sh(t, dir, `ln -s ../tmp var/tmp`)
	both := open()
	if err := both.Put(context.Background(), changes("file var/tmp/v")); err != nil {
		t.Fatal(err)
	}
	sh(t, dir, `test -e tmp/v`)
	if err := both.Remove(); err != nil {
		t.Fatal(err)
	}
	sh(t, dir, `! test -e tmp/v`)

	dir, open = area(t)
	sh(t, dir, `mv tmp real; ln -s real tmp`)
	s := open()
	if err := s.Put(context.Background(), changes("file tmp/new")); err != nil {
		t.Fatal(err)
	}
	sh(t, dir, `! test -e real/new`)
}
