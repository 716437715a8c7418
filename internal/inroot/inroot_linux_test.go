package inroot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes directories (a name that ends in "/"), links ("name -> target") and files.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		var err error
		at := filepath.Join(dir, name)
		if link, target, ok := strings.Cut(name, " -> "); ok {
			err = os.Symlink(target, filepath.Join(dir, link))
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(at, 0o755)
		} else {
			err = os.WriteFile(at, []byte(name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// open opens a root, which is closed when the test ends.
func (s Sys) open(t *testing.T, dir string) *Dirs {
	t.Helper()
	d, err := s.OpenDirs(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// A name leads where it leads a process that is chrooted to the root, with and
// without openat2.
func TestGet(t *testing.T) {
	long := strings.TrimSuffix(strings.Repeat(strings.Repeat("n", 200)+"/", 30), "/") // more than the kernel takes in one call
	dir := tree(t, "a/b/", "f", "abs -> /a/b", "rel -> a/../a", "out -> ../../../a/b", "loop -> loop", "nowhere -> missing/x", "a/up -> ..", "tofile -> f")
	top, err := Sys{}.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(long, "/") {
		if err := unix.Mkdirat(top, name, 0o755); err != nil {
			t.Fatal(err)
		}
		below, err := Sys{}.OpenDirAt(top, name)
		unix.Close(top)
		if err != nil {
			t.Fatal(err)
		}
		top = below
	}
	unix.Close(top)
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("without openat2 %t", without), func(t *testing.T) {
			d := Sys{WithoutOpenat2: without}.open(t, dir)
			for _, tt := range []struct {
				path, want string
				err        error
			}{
				{"a/b", "a/b", nil},
				{".", ".", nil},
				{"abs", "a/b", nil},
				{"rel/b", "a/b", nil},
				{"out", "a/b", nil},
				{"a/up/a/up/abs", "a/b", nil},
				{long, long, nil},
				{"loop", "", unix.ELOOP},
				{"nowhere", "", unix.ENOENT},
				{"missing/x", "", unix.ENOENT},
				{"f", "", unix.ENOTDIR},
				{"tofile", "", unix.ENOTDIR},
			} {
				f, err := d.Get(tt.path)
				if !errors.Is(err, tt.err) {
					t.Errorf("%.20s: %v, want %v", tt.path, err, tt.err)
				} else if err == nil && f.Path != tt.want {
					t.Errorf("%.20s leads to %q, want %q", tt.path, f.Path, tt.want)
				}
			}
			if _, err := d.GetReal("rel"); !errors.Is(err, unix.ELOOP) {
				t.Errorf("GetReal through a link: %v", err)
			}
		})
	}
}

// Whatever is opened, no more than maxOpen directories stay open, and none that was
// forgotten.
func TestForget(t *testing.T) {
	var names []string
	for i := range 2 * maxOpen {
		names = append(names, fmt.Sprintf("d%d/sub/", i))
	}
	d := Sys{}.open(t, tree(t, append(names, "link -> d0/sub")...))
	for i := range 2 * maxOpen {
		if _, err := d.Get(fmt.Sprintf("d%d/sub", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.open) > maxOpen {
		t.Errorf("%d directories are open", len(d.open))
	}
	for _, p := range []string{"d0", "d0/sub", "link", "d1"} {
		if _, err := d.Get(p); err != nil {
			t.Fatal(err)
		}
	}
	top, err := d.Get(".")
	if err != nil {
		t.Fatal(err)
	}
	d.Forget(top, "d0")
	for p, want := range map[string]bool{"d0": false, "d0/sub": false, "link": false, "d1": true} {
		if _, is := d.open[p]; is != want {
			t.Errorf("%s is open: %t, want %t", p, is, want)
		}
	}
}

// A call that the hook refuses is not made.
func TestHook(t *testing.T) {
	dir := tree(t, "d/", "d/f")
	refused := errors.New("refused")
	var calls []string
	hook := hookFunc(func(call string, reads bool) error {
		calls = append(calls, fmt.Sprintf("%s %t", call, reads))
		if call == "unlink" {
			return refused
		}
		return nil
	})
	d := Sys{Hook: hook}.open(t, dir)
	f, err := d.Get("d")
	if err != nil {
		t.Fatal(err)
	}
	calls = nil
	if err := d.RemoveAllAt(d.Root, "d"); err != refused {
		t.Errorf("remove: %v, want %v", err, refused)
	}
	if want := []string{"open true", "open true", "readdir true", "unlink false"}; !slices.Equal(calls, want) {
		t.Errorf("calls %q, want %q", calls, want)
	}
	if st, err := f.Stat("f"); err != nil || st == nil {
		t.Errorf("the file was removed: %v", err)
	}
	if err := (Sys{}).RemoveAllAt(d.Root, "d"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

type hookFunc func(call string, reads bool) error

func (f hookFunc) Before(call string, reads bool) error { return f(call, reads) }

func TestIsHard(t *testing.T) {
	for _, tt := range []struct {
		err  error
		hard bool
	}{
		{unix.ENOSPC, true},
		{fmt.Errorf("write: %w", unix.EIO), true},
		{errors.New("no error of the system"), true},
		{Hard(unix.EPERM), true},
		{unix.EPERM, false},
		{&os.PathError{Op: "open", Path: "f", Err: unix.EROFS}, false},
	} {
		if IsHard(tt.err) != tt.hard {
			t.Errorf("%v: hard %t, want %t", tt.err, !tt.hard, tt.hard)
		}
	}
	for _, err := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP} {
		if UnlessMissing(err) != nil {
			t.Errorf("%v does not say that a path is missing", err)
		}
	}
}

func TestInside(t *testing.T) {
	dir := tree(t, "srv/", "var -> /srv", "up -> ../../../srv", "loop -> loop")
	for p, want := range map[string]string{"var/lib": "srv/lib", "up": "srv", "../../srv": "srv", "missing/x": "missing/x"} {
		if got, err := Inside(dir, p); err != nil || got != filepath.Join(dir, want) {
			t.Errorf("%s is %s, %v; want %s", p, got, err, want)
		}
	}
	if _, err := Inside(dir, "loop"); err == nil {
		t.Error("a link to itself leads somewhere")
	}
}
