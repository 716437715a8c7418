package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clayer/clayer/internal/treetest"
)

// A user who is added after a command was killed stays when it is rolled back, wherever
// it was killed.
func TestRollbackWithUsersThatCameSince(t *testing.T) {
	with := func(name, path, before, after string) func(t *testing.T, l *Lock) error {
		return func(t *testing.T, l *Lock) error {
			step, changes := changed(t, name, path, before, after)
			_, err := l.Apply(context.Background(), step, changes)
			return err
		}
	}
	undone := func(t *testing.T, l *Lock) error {
		_, err := l.Undo(context.Background(), 0, false)
		return err
	}
	group := func(members string) string { return "root:x:0:\nsudo:x:27:" + members + "\n" }
	for _, tt := range []struct {
		name  string
		does  []func(t *testing.T, l *Lock) error
		carol bool // a user whom somebody adds after the commit: the undo merges
	}{
		{"apply", []func(*testing.T, *Lock) error{with("dave", "etc/passwd", userRoot+userBob, userRoot+userBob+userDave)}, false},
		{"apply to a group", []func(*testing.T, *Lock) error{with("sudo", "etc/group", group(""), group("bob"))}, false},
		{"undo", []func(*testing.T, *Lock) error{undone}, false},
		{"undo by record", []func(*testing.T, *Lock) error{undone}, true},
		{"edit", []func(*testing.T, *Lock) error{undone, with("dave", "etc/passwd", userRoot, userRoot+userDave)}, false},
		{"edit by record", []func(*testing.T, *Lock) error{undone, with("dave", "etc/passwd", userRoot, userRoot+userDave)}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for n, more := 1, true; more; n++ {
				how := "by a rename"
				if n%3 == 0 {
					how = "in place"
				}
				more = rollBackWithUser(t, n, how, tt.carol, group("alice"), func(l *Lock) error {
					for _, do := range tt.does {
						if err := do(t, l); err != nil {
							return err
						}
					}
					return nil
				})
			}
		})
	}
}

// rollBackWithUser kills what do does at a system call, adds a user, and rolls it back. It
// reports whether do was killed.
func rollBackWithUser(t *testing.T, n int, how string, carol bool, group string, do func(*Lock) error) bool {
	t.Helper()
	dir := fastDir(t)
	root := filepath.Join(dir, "root")
	shell(t, dir, "mkdir -p root/var/lib root/etc")
	if err := errors.Join(os.WriteFile(root+"/etc/passwd", []byte(userRoot+userAlice), 0o644), os.WriteFile(root+"/etc/group", []byte(group), 0o640)); err != nil {
		t.Fatal(err)
	}
	l := lockOf(t, dir)
	applyChanged(t, l, "bob", "etc/passwd", userRoot, userRoot+userBob)
	want := userRoot + userAlice + userBob
	if carol {
		add(t, l.root, "etc/passwd", userCarol)
		want += userCarol
	}
	err := hooked(l.root, killedAt(n), func() error { return errors.Join(do(l)) })
	killed := errors.Is(err, errDead)
	if err != nil && !killed {
		t.Fatal(err)
	}
	l.tx = nil
	if err := l.close(); err != nil {
		t.Fatal(err)
	}

	const erin, member = "erin:x:1009:1009::/:/bin/sh\n", "erin:x:1009:\n"
	if how == "in place" {
		shell(t, root, fmt.Sprintf("printf '%s' >> etc/passwd; printf '%s' >> etc/group", erin, member))
	} else {
		shell(t, root, fmt.Sprintf("for f in passwd group; do cp -p etc/$f etc/$f+; done; printf '%s' >> etc/passwd+; printf '%s' >> etc/group+; for f in passwd group; do mv etc/$f+ etc/$f; done", erin, member))
	}
	l = lockOf(t, dir)
	if l.Recovered == Finished || len(l.Preserved) > 0 {
		t.Errorf("killed at %d: recovered %q, preserved %v", n, l.Recovered, l.Preserved)
	}
	wantUsers(t, l.root, want+erin)
	wantFile(t, l.root, "etc/group", group+member)
	wantDrift(t, l.root, "")
	undo(t, l, 0, false, "")
	wantUsers(t, l.root, strings.ReplaceAll(want, userBob, "")+erin)
	if err := l.close(); err != nil || t.Failed() {
		t.Fatalf("killed at %d, %s: %v", n, how, err)
	}
	return killed
}

// wantUsers checks which users a root has, in any order.
func wantUsers(t *testing.T, r *Root, want string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(r.Dir(), "etc/passwd"))
	sorted := func(text string) string { return strings.Join(slices.Sorted(strings.Lines(text)), "") }
	if err != nil || sorted(string(got)) != sorted(want) {
		t.Errorf("etc/passwd has\n%s%v; want\n%s", got, err, want)
	}
}

// A file that the user changed after a command was killed stays, and its original is not
// lost; nor is a file that he made where the command had deleted one, or in a directory
// that is new.
func TestRollbackPreservesFilesThatChangedSince(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, `mkdir -p root/var/lib root/etc; cd root; echo base > etc/conf; echo base > etc/gone; echo base > etc/same; ln -s a etc/link; touch -d @1000000000 etc/* etc`)
	before := treetest.Describe(t, filepath.Join(dir, "root"), notOwn)
	apply := func(l *Lock) error {
		_, err := l.Apply(context.Background(), step("1"), stream(file("etc/conf", "1"), file("etc/same", "1"), gone("etc/gone"), symlink("etc/link", "b"),
			dirEntry("new"), file("new/a", "1"), dirEntry("new/sub"), file("new/sub/b", "1"), dirEntry("new/empty"), file("new/empty/c", "1")))
		return err
	}
	l := lockOf(t, dir)
	if err := apply(l); err != nil {
		t.Fatal(err)
	}
	l.tx = nil // killed before the commit
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, `cd root; echo user > etc/conf; echo user > etc/gone; ln -sfn c etc/link; echo user > new/sub/b; echo user > new/mine`)

	l = lockOf(t, dir)
	var got []string
	for _, p := range l.Preserved {
		got = append(got, p.Path)
	}
	if want := "new/mine new/sub/b new/sub new etc/link etc/gone etc/conf"; l.Recovered != RolledBack || strings.Join(got, " ") != want {
		t.Errorf("recovered %q, preserved %v; want %s", l.Recovered, got, want)
	}
	shell(t, filepath.Join(dir, "root"), `[ "$(cat etc/conf etc/gone etc/same new/sub/b new/mine)" = "$(printf 'user\nuser\nbase\nuser\nuser')" ] && [ "$(readlink etc/link)" = c ] && [ ! -e new/a ] && [ ! -e new/empty ]`)
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}

	// The next solve applies the step, and what it replaces comes back after that.
	l = lockOf(t, dir)
	if l.Recovered != NothingCutOff {
		t.Errorf("recovered %q once more", l.Recovered)
	}
	if err := apply(l); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	if _, err := l.Undo(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	shell(t, filepath.Join(dir, "root"), `[ "$(cat etc/conf etc/gone new/sub/b)" = "$(printf 'user\nuser\nuser')" ]`)

	// With force the root is what it was before all.
	if _, err := l.Undo(t.Context(), 0, true); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	shell(t, filepath.Join(dir, "root"), `touch -d @1000000000 etc`)
	treetest.Diff(t, before, treetest.Describe(t, filepath.Join(dir, "root"), notOwn))
}
