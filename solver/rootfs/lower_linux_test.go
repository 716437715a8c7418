package rootfs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// What is layered over another root must not hide the metadata of the directories there:
// neither those above the state, nor those that an entry needs.
func TestDirectoriesAreThoseOfTheRootBelow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("gives files to other users, which needs root")
	}
	defer unix.Umask(unix.Umask(0o077))
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	at := time.Unix(1_000_000_000, 0)
	dirs := map[string]uint32{".": 0o711, "var": 0o2775, "var/lib": 0o1751, "srv": 0o750, "srv/a": 0o705}
	for _, p := range []string{".", "var", "var/lib", "srv", "srv/a"} {
		p, mode := filepath.Join(below, p), dirs[p]
		if err := os.MkdirAll(p, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(p, 7, 8); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(p, "user.mark", []byte("x"), 0); err != nil {
			t.Log(err) // not on every file system
		}
	}
	if err := os.Symlink("srv", filepath.Join(below, "link")); err != nil {
		t.Fatal(err)
	}
	for p := range dirs {
		if err := os.Chtimes(filepath.Join(below, p), at, at); err != nil {
			t.Fatal(err)
		}
	}

	r, err := Open(filepath.Join(dir, "new", "over"), Options{Lower: below})
	if err != nil {
		t.Fatal(err)
	}
	implied := dirEntry("srv/a")
	implied.Implied = true
	other := dirEntry("srv/a/b/c")
	other.Implied = true
	l, err := r.Lock(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := l.Apply(t.Context(), step("x"), stream(file("srv/a/b/f", "x"), implied, other, file("link/f", "x"), &snapshot.Entry{Path: "no/such", Kind: snapshot.Delete}))
	if err != nil || len(res.Problems) > 0 {
		t.Fatal(err, res.Problems)
	}
	commit(t, l)
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	for p, mode := range dirs {
		if p == "." {
			continue // its time is that of its last change
		}
		var st, want unix.Stat_t
		if err := unix.Stat(filepath.Join(r.Dir(), p), &st); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(filepath.Join(below, p), &want); err != nil {
			t.Fatal(err)
		}
		if st.Mode != want.Mode || st.Uid != 7 || st.Gid != 8 || st.Mtim != want.Mtim {
			t.Errorf("%s: mode %o, owner %d:%d, time %v; want mode %o, owner 7:8, time %v", p, st.Mode, st.Uid, st.Gid, st.Mtim, mode, want.Mtim)
		}
		var have, mark [8]byte
		n, _ := unix.Getxattr(filepath.Join(r.Dir(), p), "user.mark", have[:])
		m, _ := unix.Getxattr(filepath.Join(below, p), "user.mark", mark[:])
		if have != mark || n != m {
			t.Errorf("%s: attribute %q, want %q", p, have[:max(n, 0)], mark[:max(m, 0)])
		}
	}
	for p, want := range map[string]os.FileMode{
		".": 0o711, "..": 0o755, "srv/a/b": 0o755, "srv/a/b/c": 0o755, "link": 0o755, "var/lib/clayer": 0o755,
		"var/lib/clayer/state.json": 0o644, "var/lib/clayer/lock": 0o644,
	} {
		info, err := os.Lstat(filepath.Join(r.Dir(), p))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", p, info.Mode(), want)
		}
	}
	if _, err := os.Lstat(filepath.Join(r.Dir(), "no")); err == nil {
		t.Error("a deletion made its directory")
	}
}

// What is reverted shows a file of the root below again; that is one file with its other
// names there, as far as they are seen.
func TestRevertShowsHardLinksOfTheRootBelow(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	for _, d := range []string{"a", "b", "c", "d/e", "f", "tmp"} {
		if err := os.MkdirAll(filepath.Join(below, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	first := filepath.Join(below, "b/1")
	if err := os.WriteFile(first, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"a/2", "c/3", "d/e/4", "d/e/5", "f/6", "f/7", "tmp/8"} {
		if err := os.Link(first, filepath.Join(below, p)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(filepath.Join(below, "over"), Options{Lower: below})
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Lock(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	stays := stream(file("c/3", "y"), &snapshot.Entry{Path: "f/6", Kind: snapshot.Delete})
	if _, err := l.Apply(t.Context(), step("stays"), stays); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Apply(t.Context(), step("reverted"), stream(file("b/1", "y"), file("d", "y"))); err != nil {
		t.Fatal(err)
	}
	commit(t, l)
	defer l.Unlock()
	changes, err := r.Revert(l.state.Log[:1], l.state.Log[1:])
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for e, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case snapshot.File:
			got += "file " + e.Path + "\n"
		case snapshot.Delete:
			got += "delete " + e.Path + "\n"
		case snapshot.Link:
			got += e.Path + " is " + e.Target + "\n"
		}
	}
	const want = "file a/2\nb/1 is a/2\nd/e/4 is a/2\nd/e/5 is a/2\ndelete f/6\nf/7 is a/2\n"
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}
