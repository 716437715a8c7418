package byhand

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is deleted or replaced is saved as it was; what is written over, incomplete, or
// elsewhere is not, and leaves nothing.
func TestHeld(t *testing.T) {
	root, to := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("lib/a/one", "1")
	write("lib/a/deep/two", "2")
	write("lib/b/over", "before")
	write("lib/b/socket/x", "x")
	write("else/file", "x")
	if err := os.Symlink("deep/two", filepath.Join(root, "lib/a/link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(root, "lib/b/socket/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := Hold(root, []string{"lib", "lib/a/one", "missing/file", "../../etc"})
	defer h.Close()
	if err := os.RemoveAll(filepath.Join(root, "lib/a")); err != nil {
		t.Fatal(err)
	}
	write("lib/b/over", "after, and in place")
	dir, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for name, want := range map[string]bool{"lib/a": true, "lib/a/one": true, "lib/a/link": true, "lib/b/over": false, "lib/b/socket": false, "lib/b": false, "lib": false, "else/file": false, "new": false} {
		known, err := h.Save(name, int(dir.Fd()), "x")
		if known != want || err != nil {
			t.Errorf("Save(%s) = %v, %v", name, known, err)
		}
		if name == "lib/a" {
			text, err := os.ReadFile(filepath.Join(to, "x/link"))
			info, _ := os.Stat(filepath.Join(to, "x/deep/two"))
			if string(text) != "2" || info.Mode().Perm() != 0o640 {
				t.Errorf("%s is %q, %v, %v", name, text, info.Mode(), err)
			}
		}
		if _, err := os.Lstat(filepath.Join(to, "x")); (err == nil) != want {
			t.Errorf("Save(%s) leaves something: %v", name, err)
		}
		if err := os.RemoveAll(filepath.Join(to, "x")); err != nil {
			t.Fatal(err)
		}
	}
}
