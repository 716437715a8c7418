package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
)

// whileUnreadable calls f while the file at path is there and can't be read: by a
// plain user, which root is for that long as far as files go. f starts no goroutine.
func whileUnreadable(t *testing.T, d *Dir, path string, f func()) {
	t.Helper()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(path, 0o644)
	if root := os.Geteuid(); root == 0 {
		const nobody = 65534
		err := filepath.WalkDir(d.Path(), func(p string, _ fs.DirEntry, err error) error {
			if err != nil || p == path {
				return err
			}
			return os.Lchown(p, nobody, nobody)
		})
		if err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Setfsuid(nobody); err != nil {
			t.Skip(err)
		}
		defer unix.Setfsuid(root)
	}
	if _, err := os.ReadFile(path); !errors.Is(err, fs.ErrPermission) {
		t.Skip("it can be read, or its directory can't:", err)
	}
	f()
}

// A file that can't be read now may be whole: nothing is removed for it.
func TestErrorsOfReadingRemoveNothing(t *testing.T) {
	for name, broken := range map[string]func(d *Dir, s cache.Descriptor) string{
		"a key file": func(d *Dir, s cache.Descriptor) string { return d.keyPath(s.Key) },
		"a layer": func(d *Dir, s cache.Descriptor) string {
			idx, err := d.readIndex()
			if err != nil {
				t.Fatal(err)
			}
			return d.blobPath(idx.Manifests[0].Digest)
		},
	} {
		d := open(t, Options{})
		a, b := put(t, d, "a", "content a"), put(t, d, "b", "content b")
		for i, s := range []cache.Descriptor{a, b} {
			if err := d.Complete(t.Context(), storetest.Layer(fmt.Sprint(i), i, s)); err != nil {
				t.Fatal(err)
			}
		}
		path := broken(d, a)
		whileUnreadable(t, d, path, func() {
			if _, err := d.Remove(t.Context(), []cache.Manifest{storetest.Layer("1", 1, b)}); err == nil {
				t.Errorf("%s: Remove has no error", name)
			}
			d.max = 1
			if err := d.evictNow(t.Context()); err == nil {
				t.Errorf("%s: evict has no error", name)
			}
		})
		if list, err := d.List(t.Context()); err != nil || !has(t, d, a) || len(list) == 0 || list[len(list)-1].Key != a.Key {
			t.Errorf("%s: after it can be read again: step a is there: %t, layers %v, %v", name, has(t, d, a), list, err)
		}
	}
}

// What is no file never was a step, or a layer: it keeps nobody from removing others.
func TestWhatIsNoFileStopsNothing(t *testing.T) {
	for kind, create := range map[string]func(path string) error{
		"link":           func(path string) error { return os.Symlink(t.TempDir(), path) },
		"dangling link":  func(path string) error { return os.Symlink("nowhere", path) },
		"link to a file": func(path string) error { return os.Symlink("/etc/hostname", path) },
		"FIFO":           func(path string) error { return unix.Mkfifo(path, 0o644) },
		"directory":      func(path string) error { return os.Mkdir(path, 0o755) },
	} {
		for _, at := range []string{"key", "manifest"} {
			t.Run(at+" that is a "+kind, func(t *testing.T) {
				d := open(t, Options{})
				a, b, c := put(t, d, "a", "content a"), put(t, d, "b", "content b"), put(t, d, "c", "content c")
				for i, s := range []cache.Descriptor{a, b, c} {
					if err := d.Complete(t.Context(), storetest.Layer(fmt.Sprint(i), i, s)); err != nil {
						t.Fatal(err)
					}
				}
				path := d.keyPath(a.Key)
				if at == "manifest" {
					idx, err := d.readIndex()
					if err != nil {
						t.Fatal(err)
					}
					path = d.blobPath(idx.Manifests[0].Digest)
				}
				if err := errors.Join(os.Remove(path), create(path)); err != nil {
					t.Fatal(err)
				}
				if _, err := d.Remove(t.Context(), []cache.Manifest{storetest.Layer("1", 1, b)}); err != nil {
					t.Errorf("Remove: %v", err)
				}
				if has(t, d, b) || !has(t, d, c) {
					t.Errorf("after Remove: what was removed is there: %t, the other one: %t", has(t, d, b), has(t, d, c))
				}
				d.max = 1
				if err := d.evictNow(t.Context()); err != nil {
					t.Errorf("evict: %v", err)
				}
				if has(t, d, c) {
					t.Error("what should be evicted is there")
				}
				if _, err := os.Lstat(path); err != nil {
					t.Errorf("what is no file was removed: %v", err)
				}
			})
		}
	}
}
