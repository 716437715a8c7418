package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/record"
)

// withProfile is a root with a step and a profile, both committed.
func withProfile(t *testing.T, dir, commands string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "root", "var", "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := lockOf(t, dir)
	applyAll(t, l, "1", file("etc/conf", "1"))
	setProfile(t, l, true, commands)
	commit(t, l)
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func setProfile(t *testing.T, l *Lock, wanted bool, commands string) []Preserved {
	t.Helper()
	preserved, err := l.SetProfile(t.Context(), wanted, []byte(commands), false)
	if err != nil {
		t.Fatal(err)
	}
	return preserved
}

// The profile is a part of the transaction: it goes with what it is about, and
// whatever stood there comes back.
func TestProfile(t *testing.T) {
	dir := fastDir(t)
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "var", "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	bare := treetest.Describe(t, root, notOwn)
	withProfile(t, dir, "export A=1\n")

	l := lockOf(t, dir)
	if got := string(l.root.Profile()); got != "export A=1\n" {
		t.Errorf("the profile holds %q", got)
	}
	// A step more, whose directory the profile is in, and another value.
	applyAll(t, l, "2", file("etc/profile.d/other.sh", "x"))
	if l.root.Profile() != nil {
		t.Error("the profile is below a step that was applied later")
	}
	setProfile(t, l, true, "export A=2\n")
	commit(t, l)
	if got := string(l.root.Profile()); got != "export A=2\n" {
		t.Errorf("the profile holds %q", got)
	}
	// What is not committed is rolled back.
	setProfile(t, l, true, "export A=3\n")
	if err := l.Rollback(); err != nil {
		t.Fatal(err)
	}
	if got := string(l.root.Profile()); got != "export A=2\n" {
		t.Errorf("behind Rollback the profile holds %q", got)
	}
	// Nothing to say: it stays wanted.
	setProfile(t, l, true, "")
	commit(t, l)
	if p := l.State().Profile; l.root.Profile() != nil || p == nil || p.Tx != 0 {
		t.Errorf("an empty profile is %q, recorded as %+v", l.root.Profile(), p)
	}
	setProfile(t, l, true, "export A=4\n")
	commit(t, l)

	undone, err := l.Undo(t.Context(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(undone.Preserved)+len(undone.Problems)+len(undone.Lost) > 0 {
		t.Errorf("undo: %+v", undone)
	}
	setProfile(t, l, false, "")
	if err := l.Commit("test", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	if got := treetest.Describe(t, root, nil); got != bare {
		treetest.Diff(t, bare, got)
	}
}

// What the user made of the profile is theirs, and what others made too.
func TestProfileThatTheUserChanged(t *testing.T) {
	dir := fastDir(t)
	withProfile(t, dir, "export A=1\n")
	path := filepath.Join(dir, "root", record.ProfilePath)
	mine := profileMark + "export A=mine\n"
	if err := os.WriteFile(path, []byte(mine), 0o644); err != nil {
		t.Fatal(err)
	}
	l := lockOf(t, dir)
	preserved := setProfile(t, l, true, "export A=2\n")
	if len(preserved) == 0 || preserved[0].Path != record.ProfilePath || !strings.Contains(preserved[0].Why, "changed") {
		t.Errorf("preserved: %v", preserved)
	}
	commit(t, l)
	if data, err := os.ReadFile(path); err != nil || string(data) != mine {
		t.Errorf("the user's profile is now %q, %v", data, err)
	}
	// By force it is taken too.
	if _, err := l.Undo(t.Context(), 0, true); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit("test", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the profile outlives an undo by force")
	}

	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("export B=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := l.SetProfile(t.Context(), true, []byte("export A=2\n"), false); !errors.Is(err, ErrProfile) {
		t.Errorf("another's profile: error = %v, want ErrProfile", err)
	}
	if err := l.Commit("test", nil, nil); err != nil { // the transaction goes on
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "export B=1\n" {
		t.Errorf("another's profile is now %q, %v", data, err)
	}
	if l.State().Profile != nil {
		t.Error("another's profile is recorded as clayer's")
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}

// Killed at any system call, a root has the environment and the profile of
// before, or those of after.
func TestProfileKilledAtEverySystemCall(t *testing.T) {
	change := func(l *Lock) error {
		if _, err := l.SetProfile(t.Context(), true, []byte("export A=2\n"), false); err != nil {
			return err
		}
		return l.Commit("test", []record.LayerKeys{{Name: "base"}}, []record.Var{{Name: "A", Value: "2"}})
	}
	run := func(n int) (calls int, died bool) {
		dir := fastDir(t)
		withProfile(t, dir, "export A=1\n")
		l := lockOf(t, dir)
		err := hooked(l.root, func(_ string, reads bool) error {
			if !reads {
				calls++
			}
			if n > 0 && calls >= n {
				return errDead
			}
			return nil
		}, func() error { return errors.Join(change(l), l.close()) })
		l = lockOf(t, dir)
		env, profile := "1", string(l.root.Profile())
		if len(l.State().Env) > 0 {
			env = l.State().Env[0].Value
		}
		if want := fmt.Sprintf("export A=%s\n", env); profile != want {
			t.Errorf("killed at call %d: the environment is A=%s, and the profile %q", n, env, profile)
		}
		if err := l.Unlock(); err != nil {
			t.Errorf("killed at call %d: %v", n, err)
		}
		left, err2 := os.ReadDir(filepath.Join(dir, "root", filepath.Dir(record.ProfilePath)))
		if err2 != nil || len(left) != 1 {
			t.Errorf("killed at call %d: left are %v, %v", n, left, err2)
		}
		removeAllModes(dir)
		return calls, err != nil
	}
	calls, died := run(0)
	if died || calls < 10 {
		t.Fatalf("%d calls, died %t", calls, died)
	}
	for n := 1; n <= calls; n++ {
		run(n)
	}
}
