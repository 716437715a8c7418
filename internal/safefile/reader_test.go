package safefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReader reads what ReadFile reads, and refuses what that refuses.
func TestReader(t *testing.T) {
	root, dir, _ := tree(t)
	for name, size := range map[string]int{"empty": 0, "large": 70_000, "bound": 1000} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", size)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := NewReader(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, name := range []string{
		"file", "sub/file", "sub/../file", "./file", "empty", "large", "bound", "fifo", "sub", "link", "dangling",
		"inside/file", "outside/file", "../file", "..", "file/below", "none", "none/file", "", "/file",
	} {
		for _, limit := range []int64{1, 1000, 1 << 20} {
			soon(t, func() {
				want, wantErr := ReadFile(root, name, limit)
				got, err := r.ReadFile(name, limit)
				if string(got) != string(want) || (err == nil) != (wantErr == nil) {
					t.Errorf("%s, at most %d: %d bytes, %v, want %d, %v", name, limit, len(got), err, len(want), wantErr)
				}
				for _, kind := range []error{fs.ErrNotExist, fs.ErrInvalid, ErrNotRegular, ErrTooLarge, unix.ENOTDIR, unix.ELOOP} {
					if errors.Is(err, kind) != errors.Is(wantErr, kind) {
						t.Errorf("%s, at most %d: %v, want %v", name, limit, err, wantErr)
					}
				}
			})
		}
	}
}

// TestReaderOfProc reads files that say that they are empty.
func TestReaderOfProc(t *testing.T) {
	root, err := os.OpenRoot("/proc/self")
	if err != nil {
		t.Skip(err)
	}
	defer root.Close()
	r, err := NewReader(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := r.ReadFile("status", 1<<20); err != nil || !strings.Contains(string(got), "\nVmRSS:") {
		t.Errorf("%q, %v", got, err)
	}
}
