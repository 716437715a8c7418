package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// A step that ran on the root itself is undone as far as that goes: what it
// created is taken away, and the rest is reported.
func TestAdopt(t *testing.T) {
	r, l := testRoot(t)
	shell(t, r.Dir(), "echo old > f; mkdir d; echo x > gone; mkdir was; touch -d @1000000000 f d gone was .")
	// What the step did, and what it is told to have done.
	existed := map[string]bool{"f": true, "d": true, "gone": true}
	shell(t, r.Dir(), "rm gone; mkdir d/new; touch -d @1600000000.123456789 d/new")
	for name, content := range map[string]string{"f": "new", "d/new/x": "x", "d/y": "y"} {
		shell(t, r.Dir(), "printf "+content+" > "+name+"; touch -d @1600000000.123456789 "+name)
	}
	shell(t, r.Dir(), "touch -d @1600000000.123456789 d/new")
	s := step("1")
	was := dirEntry("was")
	was.ModTime = time.Unix(1000000000, 0)
	now := dirEntry("was")
	now.Mode = 0o700
	shell(t, r.Dir(), "chmod 0700 was; touch -d @1600000000.123456789 was")
	s.Before = func(p string) (*snapshot.Entry, bool) {
		if p == "was" {
			return was, true
		}
		return nil, existed[p]
	}
	res, err := l.Adopt(t.Context(), s, stream(file("f", "new"), gone("gone"), dirEntry("d/new"), file("d/new/x", "x"), file("d/y", "y"), now))
	if err != nil || res.Entries != 6 {
		t.Fatal(err, res)
	}
	state, err := r.State()
	if err != nil || len(state.Log) != 1 || !state.Log[0].Adopted || len(state.Layers) != 1 || len(state.Layers[0].Steps) != 1 {
		t.Fatalf("state = %+v, %v", state, err)
	}
	files, err := drift.Verify(t.Context(), r.Dir(), r.StateDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.State != drift.AsApplied {
			t.Errorf("%+v", f)
		}
	}
	// A step over it is undone wholly; then what it made itself.
	applyAll(t, l, "2", file("d/y", "2"), file("more", "2"))
	commit(t, l)
	shell(t, r.Dir(), "echo mine > d/new/x")
	undone, err := l.Undo(t.Context(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	slices.Sort(undone.Lost)
	if !slices.Equal(undone.Lost, []string{"f", "gone"}) || len(undone.Preserved) != 2 {
		t.Errorf("lost %q, kept %v", undone.Lost, undone.Preserved)
	}
	shell(t, r.Dir(), `[ "$(stat -c '%a %Y' was)" = "755 1000000000" ]`)
	shell(t, r.Dir(), `[ ! -e d/y ] && [ ! -e more ] && [ "$(cat d/new/x)" = mine ] && [ "$(cat f)" = new ]`)
	if _, err := l.Undo(t.Context(), 0, true); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	shell(t, r.Dir(), `[ ! -e d/new ] && [ -d d ]`)
}

// While nothing is known of what was there, nothing is taken for new.
func TestAdoptKnowingNothing(t *testing.T) {
	r, l := testRoot(t)
	shell(t, r.Dir(), "echo x > f")
	if _, err := l.Adopt(t.Context(), step("1"), stream(file("f", "x"))); err != nil {
		t.Fatal(err)
	}
	before := treetest.Describe(t, r.Dir(), func(p string) bool { return p == "var" })
	undone, err := l.Undo(t.Context(), 0, true)
	if err != nil || !slices.Equal(undone.Lost, []string{"f"}) {
		t.Fatal(err, undone)
	}
	commit(t, l)
	treetest.Diff(t, before, treetest.Describe(t, r.Dir(), func(p string) bool { return p == "var" }))
}

// What the user put in place of a hard link stays, though its time is the same.
func TestUndoKnowsWhatAHardLinkIs(t *testing.T) {
	r, l := testRoot(t)
	applyAll(t, l, "1", file("f", "x"), &snapshot.Entry{Path: "l", Kind: snapshot.Link, Target: "f"})
	commit(t, l)
	shell(t, r.Dir(), "rm l; ln -s x l; touch -h -r f l")
	undone, err := l.Undo(t.Context(), 0, false)
	if err != nil || len(undone.Preserved) != 1 || undone.Preserved[0] != (Preserved{"l", "changed: now a symlink"}) {
		t.Fatal(err, undone)
	}
	commit(t, l)
	shell(t, r.Dir(), "[ -L l ] && [ ! -e f ]")
}

// A directory that the user put in place of a file, which had replaced a directory: what
// was begun to undo it by force is undone.
func TestKilledUndoOfADirectoryOverADirectory(t *testing.T) {
	for n := 1; ; n++ {
		dir := fastDir(t)
		shell(t, dir, "mkdir -p root/a root/var/lib; echo 1 > root/a/old; touch -d @1000000000 root/a/old root/a root/var root/var/lib root")
		l := lockOf(t, dir)
		applyAll(t, l, "1", file("a", "x"))
		commit(t, l)
		l.close()
		root := filepath.Join(dir, "root")
		shell(t, root, "rm a; mkdir a; echo mine > a/new")
		was := treetest.Describe(t, root, notOwn)
		l = lockOf(t, dir)
		tx := l.state.Tx
		err := hooked(l.root, killedAt(n), func() error {
			if _, err := l.Undo(t.Context(), 0, true); err != nil {
				return err
			}
			return l.Commit("test", nil, nil)
		})
		if l.tx != nil {
			l.tx.journal.Close()
		}
		l.close()
		if err == nil {
			break
		}
		l = lockOf(t, dir)
		if l.state.Tx == tx {
			treetest.Diff(t, was, treetest.Describe(t, root, notOwn))
		} else {
			shell(t, root, "[ -f a/old ] && [ ! -e a/new ]")
		}
		l.close()
	}
}

// half is what keeps the originals of files that an install replaced, which stops halfway with
// an error; nil: it saves them.
func half(stops error) func(p string, dir int, name string) (bool, error) {
	return func(p string, dir int, name string) (bool, error) {
		at := filepath.Join("/proc/self/fd", strconv.Itoa(dir), name)
		if stops != nil {
			return false, errors.Join(os.WriteFile(at, []byte("ol"), 0o600), os.Remove(at), stops)
		}
		return true, os.WriteFile(at, []byte("old"), 0o644)
	}
}

// What an install replaced comes back if it was saved. What a full disk had no space for is
// lost, and the install is adopted all the same; any other error leaves all as it was.
func TestAdoptWhatWasHeld(t *testing.T) {
	for _, tt := range []struct {
		name  string
		stops error
		fails bool
		after string // of an undo
		lost  bool
	}{
		{name: "saved", after: "old"},
		{name: "a full disk", stops: unix.ENOSPC, after: "new", lost: true},
		{name: "a failing disk", stops: unix.EIO, fails: true, after: "new"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, l := testRoot(t)
			shell(t, r.Dir(), "printf new > f")
			s := step("1")
			s.Before = func(string) (*snapshot.Entry, bool) { return nil, true }
			s.Original = half(tt.stops)
			if _, err := l.Adopt(t.Context(), s, stream(file("f", "new"))); (err != nil) != tt.fails {
				t.Fatal(err)
			}
			state, err := r.State()
			if err != nil || (len(state.Log) == 0) != tt.fails {
				t.Fatalf("%d steps in the state, %v", len(state.Log), err)
			}
			undone, err := l.Undo(t.Context(), 0, true)
			if err != nil || (len(undone.Lost) > 0) != tt.lost {
				t.Fatalf("lost %q, %v", undone.Lost, err)
			}
			commit(t, l)
			shell(t, r.Dir(), `[ "$(cat f)" = `+tt.after+` ]`)
		})
	}
}

// After a kill at any call of an adoption, also while an original is being saved, the step is
// adopted, and its undo gives the original back, or it is not, and the root is as it was.
func TestKilledAdoptOfWhatWasHeld(t *testing.T) {
	for n, killed := 1, true; killed; n++ {
		dir := fastDir(t)
		if err := os.MkdirAll(filepath.Join(dir, "root"), 0o755); err != nil {
			t.Fatal(err)
		}
		l := lockOf(t, dir)
		shell(t, l.root.Dir(), "printf new > f; printf new > g")
		s := step("1")
		s.Before = func(string) (*snapshot.Entry, bool) { return nil, true }
		dead := killedAt(n)
		killed = hooked(l.root, dead, func() error {
			s.Original = func(p string, dir int, name string) (bool, error) {
				if err := dead("write", false); err != nil { // before, or while it is written
					at := filepath.Join("/proc/self/fd", strconv.Itoa(dir), name)
					return false, errors.Join(os.WriteFile(at, []byte("ol"), 0o600), err)
				}
				return half(nil)(p, dir, name)
			}
			_, err := l.Adopt(t.Context(), s, stream(file("f", "new"), file("g", "new")))
			return err
		}) != nil
		if l.tx != nil {
			l.tx.journal.Close()
		}
		l.close()
		l = lockOf(t, dir)
		shell(t, l.root.Dir(), `[ "$(cat f g)" = newnew ]`)
		want := "newnew"
		if len(l.State().Log) > 0 {
			want = "oldold"
		} else if !killed {
			t.Fatal("it is not adopted")
		}
		if _, err := l.Undo(t.Context(), 0, true); err != nil {
			t.Fatalf("killed at call %d: %v", n, err)
		}
		commit(t, l)
		shell(t, l.root.Dir(), `[ "$(cat f g)" = `+want+` ]`)
		l.close()
		removeAllModes(dir)
	}
}
