package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/sandbox"
)

// overs are the ways in which a directory can lie over a root, as --dest has it.
var overs = []struct {
	name     string
	beside   bool // on another file system than the root
	mount    bool // something is mounted in the root: no overlay in a user namespace covers it whole
	overlaid bool // the root is an overlay itself, and can be no part of two more
}{
	{name: "inside of the root"},
	{name: "beside the root", beside: true},
	{name: "in a root with a mount", mount: true},
	{name: "in a root that is an overlay", overlaid: true},
}

// overRoot returns a copy of the test root of which a part is in a directory to lie over
// it, in a way that needs all of the rules by which layers are merged.
func overRoot(t *testing.T, beside, mount, overlaid bool) (root, over string) {
	t.Helper()
	from, _ := fixture(t)
	root = t.TempDir()
	over = filepath.Join(root, "out/dir")
	mounted := func(at, fs, data string) {
		t.Helper()
		if err := unix.Mount(fs, at, fs, 0, data); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	}
	if overlaid {
		mem := t.TempDir()
		mounted(mem, "tmpfs", "mode=755")
		up, work := filepath.Join(mem, "up"), filepath.Join(mem, "work")
		if err := errors.Join(os.Mkdir(up, 0o755), os.Mkdir(work, 0o755)); err != nil {
			t.Fatal(err)
		}
		mounted(root, "overlay", "lowerdir="+root+",upperdir="+up+",workdir="+work)
	}
	if beside {
		over = t.TempDir()
		mounted(over, "tmpfs", "mode=755")
	}
	if err := copyRoot(from, root); err != nil {
		t.Fatal(err)
	}
	if mount {
		at := filepath.Join(root, "mnt")
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		mounted(at, "tmpfs", "mode=755")
	}
	const split = `
		mkdir -p "$2/w/d/s" "$2/w/tree/a" "$2/var/lib/clayer"; cd "$1/w"
		mv f h1 h2 ld "$2/w"; mv d/x "$2/w/d"; mv tree/a/1 tree/a/b "$2/w/tree/a"
		echo hidden >f; mkdir ld; echo hidden >ld/x; echo hidden >tree/a/b
		for d in . d d/s tree tree/a; do touch -r "$3/w/$d" "$d" "$2/w/$d"; done`
	if out, err := exec.Command("/bin/sh", "-ec", split, "sh", root, over, from).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return root, over
}

func TestDirectoryOverTheRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	from, _ := fixture(t)
	for _, o := range overs {
		t.Run(o.name, func(t *testing.T) {
			root, over := overRoot(t, o.beside, o.mount, o.overlaid)
			modes(t, func(t *testing.T, s *testOverlay) {
				s = newOverlay(t, s.rooted, sandbox.Options{Root: root, Over: over})
				for i, tt := range runCases {
					// What a view begins with a copy of is compared by its ctime.
					copied := o.overlaid && s.rooted
					if tt.rootOnly && !s.rooted || tt.rootFits || copied && tt.more != "" || o.name != overs[0].name && i%4 != 0 {
						continue
					}
					t.Run(tt.name, func(t *testing.T) {
						base, view := check(t, newView(t, s), from, s.rooted, tt.scripts, tt.want)
						if base != view && !tt.partly {
							t.Errorf("- base and snapshots, + view\n%s", difference(base, view))
						}
					})
				}
			})
		})
	}
}

// closedVariable names the directory that TestDirectoriesOfOtherUsers has made, in the
// process that is another user.
const closedVariable = "CLAYER_TEST_CLOSED"

// TestDirectoriesOfOtherUsers has a plain user put files into directories of root, of which
// the kernel shows no part, or copies none up, in a user namespace.
func TestDirectoriesOfOtherUsers(t *testing.T) {
	if dir := os.Getenv(closedVariable); dir != "" {
		seeDirectoriesOfOtherUsers(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	for _, tt := range []struct {
		name  string
		mount bool
	}{{"whole", false}, {"top-level directories", true}} {
		t.Run(tt.name, func(t *testing.T) {
			dir, over := overRoot(t, false, tt.mount, false)
			const nobody = 65534
			const script = `
				chmod 755 "$1/.." "$1"; cd "$1/w"; umask 022
				mkdir -p "$2/w/closed/sub" "$2/w/own/none" closed/sub other/one other/two
				echo secret >closed/secret; echo one >other/one/1
				echo mine >"$2/w/closed/mine"; echo f >"$2/w/closed/sub/f"; echo f >"$2/w/own/none/f"
				mkdir -p links/a/b; echo 1 >links/a/b/1; ln links/a/b/1 links/a/2
				chmod 0 "$2/w/own/none"; chown -R $3:$3 "$1"; chown -R 0:0 closed other; chmod 700 closed other/two`
			if out, err := exec.Command("/bin/sh", "-ec", script, "sh", dir, over, fmt.Sprint(nobody)).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			self, err := programFile()
			if err != nil {
				t.Fatal(err)
			}
			nobodys := filepath.Join(dir, "out/test") // where others may start it
			if err := copyExecutable(self, nobodys); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(nobodys, "-test.run=^TestDirectoriesOfOtherUsers$", "-test.v")
			cmd.Env = append(os.Environ(), closedVariable+"="+dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := cmd.CombinedOutput()
			if t.Logf("%s", out); err != nil {
				t.Error(err)
			}
		})
	}
}

func seeDirectoriesOfOtherUsers(t *testing.T, dir string) {
	s := newOverlay(t, false, sandbox.Options{Root: dir, Over: filepath.Join(dir, "out/dir")})
	v := newView(t, s)
	expect := func(script, wantChanges, wantSeen string) {
		t.Helper()
		changes, seen := sh(t, v, script)
		if trim(changes) != trim(wantChanges) || seen != wantSeen {
			t.Errorf("%s: saw\n%swant\n%schanged\n%swant\n%s", script, seen, wantSeen, changes, wantChanges)
		}
	}
	expect("ls closed; cat closed/mine closed/sub/f own/none/f", "", "mine\nsub\nmine\nf\nf\n")
	expect("echo new >closed/new; rm -r closed/sub; rm own/none/f; touch -d @1 closed own/none", `
		dir w/closed 0755
		file w/closed/new 0644 4
		delete w/closed/sub
		dir w/own/none 0000
		delete w/own/none/f`, "")

	expect("echo 2 >links/a/2; touch -d @1 links/a/2; cat links/a/b/1", "file w/links/a/2 0644 2\nlink w/links/a/b/1 -> w/links/a/2", "2\n")

	put := func(p, content string) *snapshot.Entry {
		return &snapshot.Entry{Path: p, Kind: snapshot.File, Mode: 0o644, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), nil
		}}
	}
	blob := pack(t, func(yield func(*snapshot.Entry, error) bool) {
		for _, e := range []*snapshot.Entry{put("w/other/one/2", "two\n"), put("w/other/two/3", "three\n")} {
			if !yield(e, nil) {
				return
			}
		}
	})
	if err := v.Apply(t.Context(), bytes.NewReader(blob), record.Placement{}); err != nil {
		t.Fatal(err)
	}
	expect("cd other; cat */*", "", "one\ntwo\nthree\n")
	expect("rm other/one/1; touch -d @1 other/one", "dir w/other/one 0755\ndelete w/other/one/1", "")
}

// TestRemoveATopLevelDirectory has a RUN remove and move directories beside those that the
// machine mounts things in.
func TestRemoveATopLevelDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	for _, o := range overs {
		t.Run(o.name, func(t *testing.T) {
			root, over := overRoot(t, o.beside, o.mount, o.overlaid)
			for _, p := range []string{"app/a/b", "srv/x"} {
				if err := os.MkdirAll(filepath.Join(over, p), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			modes(t, func(t *testing.T, s *testOverlay) {
				s = newOverlay(t, s.rooted, sandbox.Options{Root: root, Over: over})
				v := newView(t, s)
				clone, err := v.Clone(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer clone.Close()
				for _, v := range []sandbox.View{v, clone} {
					const want = "delete app\ndir new 0755\ndir new/b 0755\ndelete srv\n"
					if changes, seen := sh(t, v, "mv /app/a /new; rm -r /app; mv /srv/x /app; rmdir /srv /app; ls -d /app /srv || true"); changes != want {
						t.Errorf("changed\n%swant\n%ssaw %s", changes, want, seen)
					}
				}
			})
		})
	}

	// Without a directory over it, this is so where nothing is mounted in the root.
	from, _ := fixture(t)
	root := t.TempDir()
	if err := errors.Join(copyRoot(from, root), os.MkdirAll(filepath.Join(root, "app/a"), 0o755)); err != nil {
		t.Fatal(err)
	}
	modes(t, func(t *testing.T, s *testOverlay) {
		v := newView(t, newOverlay(t, s.rooted, sandbox.Options{Root: root}))
		if changes, seen := sh(t, v, "mv /app/a /w/a; rm -r /app"); changes != "delete app\ndir w 0755\ndir w/a 0755\n" {
			t.Errorf("changed\n%ssaw %s", changes, seen)
		}
	})
}

// TestCaptureLeavesOutWhatLiesOverTheRoot: steps have reported it.
func TestCaptureLeavesOutWhatLiesOverTheRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	for _, o := range overs {
		t.Run(o.name, func(t *testing.T) {
			root, over := overRoot(t, o.beside, o.mount, o.overlaid)
			modes(t, func(t *testing.T, s *testOverlay) {
				v := newView(t, newOverlay(t, s.rooted, sandbox.Options{Root: root, Over: over}))
				changes, err := v.Capture(t.Context(), "/w/tree")
				if err != nil {
					t.Fatal(err)
				}
				const want = "file w/tree/a/2 0644 2\nfile w/tree/a/3 0644 2\nfile w/tree/a/4 0644 2\nfile w/tree/a/5 0644 2\n"
				// In a copy, a directory is the root's as long as it looks like it.
				if got := strings.ReplaceAll(text(t, changes), "dir w/tree 0755\ndir w/tree/a 0755\n", ""); got != want {
					t.Errorf("captured\n%swant\n%s", got, want)
				}
			})
		})
	}
}
