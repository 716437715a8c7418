package byhand

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// small mounts a file system of a few pages, where this user may.
func small(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "small")
	if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,nr_inodes=12")); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// On a full disk nothing is left of what was not saved whole, the error says so, and what has
// space is saved afterwards.
func TestHeldOnAFullDisk(t *testing.T) {
	root := t.TempDir()
	for name, size := range map[string]int{"large": 256 << 10, "small": 4 << 10, "tree/a": 40 << 10, "tree/b/c": 40 << 10} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755), os.WriteFile(filepath.Join(root, name), []byte(strings.Repeat("x", size)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 { // more than the disk has inodes for
		if err := os.MkdirAll(filepath.Join(root, "many", strings.Repeat("d", i+1)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := Hold(root, []string{"large", "small", "tree", "many"})
	defer h.Close()
	if err := errors.Join(os.RemoveAll(filepath.Join(root, "tree")), os.RemoveAll(filepath.Join(root, "many")), os.Remove(filepath.Join(root, "large")), os.Remove(filepath.Join(root, "small"))); err != nil {
		t.Fatal(err)
	}
	to := small(t)
	dir, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for range 2 {
		for _, name := range []string{"large", "tree", "many"} {
			known, err := h.Save(name, int(dir.Fd()), "x")
			if known || !errors.Is(err, unix.ENOSPC) {
				t.Errorf("Save(%s) = %v, %v, want ENOSPC", name, known, err)
			}
			if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
				t.Errorf("Save(%s) leaves %v, %v", name, left, err)
			}
		}
	}
	if known, err := h.Save("small", int(dir.Fd()), "x"); !known || err != nil {
		t.Errorf("Save(small) = %v, %v", known, err)
	}
}
