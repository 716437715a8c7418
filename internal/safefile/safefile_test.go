package safefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree is a directory with one of everything; elsewhere is outside of it.
func tree(t *testing.T) (root *os.Root, dir, elsewhere string) {
	t.Helper()
	dir, elsewhere = t.TempDir(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644))
	must(os.WriteFile(filepath.Join(elsewhere, "file"), []byte("another's"), 0o644))
	must(os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "sub", "file"), []byte("below"), 0o644))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	must(os.Symlink("file", filepath.Join(dir, "link")))
	must(os.Symlink(filepath.Join(elsewhere, "new"), filepath.Join(dir, "dangling")))
	must(os.Symlink("sub", filepath.Join(dir, "inside")))
	must(os.Symlink(elsewhere, filepath.Join(dir, "outside")))
	root, err := OpenDir(dir)
	must(err)
	t.Cleanup(func() { root.Close() })
	return root, dir, elsewhere
}

// soon fails the test if f does not return: it waits for somebody.
func soon(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it waits")
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	root, _, elsewhere := tree(t)
	for _, tt := range []struct {
		name string
		flag int
		ok   bool
	}{
		{"file", os.O_RDONLY, true},
		{"sub/file", os.O_RDONLY, true},
		{"new", os.O_RDWR | os.O_CREATE, true},
		{"fifo", os.O_RDONLY, false},
		{"fifo", os.O_WRONLY, false},
		{"fifo", os.O_RDWR | os.O_CREATE, false},
		{"sub", os.O_RDONLY, false},
		{"link", os.O_RDONLY, false},
		{"link", os.O_RDWR | os.O_TRUNC, false},
		{"dangling", os.O_RDWR | os.O_CREATE, false},
		{"inside/file", os.O_RDONLY, false},
		{"outside/file", os.O_RDONLY, false},
		{"../file", os.O_RDONLY, false},
		{"file/below", os.O_RDONLY, false},
	} {
		soon(t, func() {
			f, err := OpenFile(root, tt.name, tt.flag, 0o644)
			if err == nil {
				f.Close()
			}
			if (err == nil) != tt.ok {
				t.Errorf("%s, flags %#x: %v, want success: %v", tt.name, tt.flag, err, tt.ok)
			}
		})
	}
	if _, err := os.Lstat(filepath.Join(elsewhere, "new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made through a link: %v", err)
	}
	if got, err := ReadFile(root, "file", 100); err != nil || string(got) != "content" {
		t.Errorf("what a link names was changed: %q, %v", got, err)
	}
	for name, want := range map[string]error{"fifo": ErrNotRegular, "link": ErrNotRegular, "none": fs.ErrNotExist} {
		if _, err := OpenFile(root, name, os.O_RDONLY, 0); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestTruncatingEmptiesARegularFile(t *testing.T) {
	root, _, _ := tree(t)
	f, err := OpenFile(root, "file", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got, err := ReadFile(root, "file", 100); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}

func TestReadingIsBounded(t *testing.T) {
	root, dir, _ := tree(t)
	if err := os.Truncate(filepath.Join(dir, "file"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(root, "file", 1<<20); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
	if got, err := ReadFile(root, "sub/file", 5); err != nil || string(got) != "below" {
		t.Errorf("a file of exactly the bound: %q, %v", got, err)
	}
	if _, err := ReadFile(root, "sub/file", 4); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}

func TestDirectoriesAreOpenedThroughNoLink(t *testing.T) {
	root, dir, elsewhere := tree(t)
	sub, err := OpenDirIn(root, "sub")
	if err != nil {
		t.Fatal(err)
	}
	sub.Close()
	for _, name := range []string{"inside", "outside", "file", "fifo", "none", "..", "inside/x"} {
		soon(t, func() {
			if sub, err := OpenDirIn(root, name); err == nil {
				sub.Close()
				t.Errorf("%s was opened", name)
			}
		})
	}
	for _, name := range []string{"inside", "outside", "file", "fifo"} {
		soon(t, func() {
			if sub, err := OpenDir(filepath.Join(dir, name)); err == nil {
				sub.Close()
				t.Errorf("%s was opened", name)
			}
			if err := MkdirAll(root, name+"/made", 0o755); err == nil {
				t.Errorf("%s/made was made", name)
			}
		})
	}
	if sub, err = OpenDir(filepath.Join(dir, "inside", "..", "sub")); err != nil {
		t.Errorf("a link before the last name: %v", err)
	} else {
		sub.Close()
	}
	if list, err := os.ReadDir(elsewhere); err != nil || len(list) != 1 {
		t.Errorf("elsewhere holds %v, %v", list, err)
	}
}

func TestModesDoNotDependOnTheUmask(t *testing.T) {
	root, dir, _ := tree(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	if err := errors.Join(MkdirAll(root, "a/b", 0o755), MkdirAll(root, "a/b", 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "a/b"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// The directories above a cache directory are others' too.
func TestOnlyTheDirectoryOfPrivateOnesIsPrivate(t *testing.T) {
	for _, tt := range []struct {
		perm fs.FileMode
		want map[string]fs.FileMode
	}{
		{0o700, map[string]fs.FileMode{"a": 0o755, "a/b": 0o755, "a/b/cache": 0o700, "a/b/cache/store": 0o700}},
		{0o755, map[string]fs.FileMode{"a": 0o755, "a/b": 0o755, "a/b/cache": 0o755, "a/b/cache/store": 0o755}},
	} {
		dir := t.TempDir()
		if err := MakeAll(filepath.Join(dir, "a/b/cache/store"), tt.perm); err != nil {
			t.Fatal(err)
		}
		for name, want := range tt.want {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != want {
				t.Errorf("%s for mode %o: %o, want %o", name, tt.perm, got, want)
			}
		}
	}
}

func TestOwners(t *testing.T) {
	for _, tt := range []struct {
		owner uint32
		euid  int
		sudo  string
		want  bool
	}{
		{0, 0, "", true},
		{0, 1000, "", true},
		{1000, 1000, "", true},
		{1000, 0, "", false},
		{1000, 0, "1000", true},
		{1001, 0, "1000", false},
		{1001, 1000, "1001", false}, // whoever is not root was not made root by sudo
		{1000, 0, "nonsense", false},
		{1 << 31, 0, "2147483648", true},
	} {
		if got := trusted(tt.owner, tt.euid, tt.sudo); got != tt.want {
			t.Errorf("owner %d, euid %d, SUDO_UID=%s: %v", tt.owner, tt.euid, tt.sudo, got)
		}
	}
}

func TestDirectoriesThatOthersCanChange(t *testing.T) {
	for _, tt := range []struct {
		mode     fs.FileMode
		uid, gid int
		want     string
	}{
		{0o755, -1, -1, ""},
		{0o700, -1, -1, ""},
		{0o777, -1, -1, "other users can write to it (mode 0777)"},
		{0o777 | fs.ModeSticky, -1, -1, "other users can write to it"},
		{0o775, 0, 12, "other users can write to it (mode 0775)"},
		{0o775, 0, 0, ""},
		{0o755, 12, 12, "it belongs to another user (uid 12)"},
	} {
		if tt.uid >= 0 && os.Geteuid() != 0 {
			continue // giving files away is root's
		}
		dir := t.TempDir()
		if err := errors.Join(os.Chown(dir, tt.uid, tt.gid), os.Chmod(dir, tt.mode)); err != nil {
			t.Fatal(err)
		}
		root, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		err = CheckDir(root)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir)) {
			t.Errorf("mode %v of %d:%d: %v, want %q", tt.mode, tt.uid, tt.gid, err, tt.want)
		}
	}
}
