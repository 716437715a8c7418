package dir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/dag/key"
)

// everything returns the names of all that is below a directory, with the
// contents of files.
func everything(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		all[path] = ""
		if e.Type().IsRegular() {
			data, err := os.ReadFile(path)
			all[path] = string(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// use does all that is done with a store. Errors are fine.
func use(t *testing.T, path string) {
	t.Helper()
	d, err := Open(path, Options{})
	if err != nil {
		return
	}
	a, blob := storetest.Step("a", "content a")
	b, _ := storetest.Step("b", strings.Repeat("b", 500))
	d.Find(t.Context(), "", []key.Key{a.Key, b.Key})
	d.Put(t.Context(), a, blob)
	if f, err := d.Create(); err == nil {
		io.WriteString(f, strings.Repeat("b", 500))
		f.Packed(b.Digest)
		d.Put(t.Context(), b, f)
		f.Close()
	}
	m := storetest.Layer("base", 1, a, b)
	d.Complete(t.Context(), m)
	d.List(t.Context())
	var fetched cache.Blob
	d.Fetch(t.Context(), a, &fetched)
	fetched.Close()
	d.Remove(t.Context(), []cache.Manifest{m})
	small, err := Open(path, Options{MaxSize: 1})
	if err != nil {
		return
	}
	c, blob := storetest.Step("c", "content c")
	small.Put(t.Context(), c, blob)
}

// Whatever in a store is a link, nothing is made, changed or removed where it leads.
func TestNoLinkIsFollowed(t *testing.T) {
	old := time.Now().Add(-48 * time.Hour)
	digestName := strings.Repeat("ab", 32)
	for _, name := range []string{"", "lock", "tmp", "keys", "blobs", "blobs/sha256", "index.json", "oci-layout", "written"} {
		for _, target := range []string{"dir", "file", "nothing"} {
			t.Run(name+" to "+target, func(t *testing.T) {
				elsewhere, path := t.TempDir(), filepath.Join(t.TempDir(), "store")
				d, err := Open(path, Options{})
				if err != nil {
					t.Fatal(err)
				}
				put(t, d, "old", "content")
				for _, n := range []string{"dir/precious", "dir/sha256/precious", "dir/sha256/" + digestName, "dir/" + digestName, "dir/part-old", "dir/blob-old", "file"} {
					if err := errors.Join(os.MkdirAll(filepath.Join(elsewhere, filepath.Dir(n)), 0o755), os.WriteFile(filepath.Join(elsewhere, n), []byte("precious"), 0o644),
						os.Chtimes(filepath.Join(elsewhere, n), old, old)); err != nil {
						t.Fatal(err)
					}
				}
				before := everything(t, elsewhere)
				link := filepath.Join(path, name)
				if err := errors.Join(os.RemoveAll(link), os.Symlink(filepath.Join(elsewhere, target), link)); err != nil {
					t.Fatal(err)
				}
				if name == "" {
					d, err := Open(path, Options{Private: true})
					if err == nil {
						t.Errorf("%s was opened", d.Path())
					}
					return
				}
				use(t, path)
				after := everything(t, elsewhere)
				for n, content := range before {
					if got, ok := after[n]; !ok || got != content {
						t.Errorf("%s: there: %t, content %q", n, ok, got)
					}
				}
				for n := range after {
					if _, ok := before[n]; !ok {
						t.Errorf("%s was made", n)
					}
				}
			})
		}
	}
}

// The directory that the user names may be a link.
func TestTheStoreItselfMayBeALink(t *testing.T) {
	d := open(t, Options{})
	a := put(t, d, "a", "content")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(d.Path(), link); err != nil {
		t.Fatal(err)
	}
	linked, err := Open(link, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if b := put(t, linked, "b", "b"); !has(t, linked, a) || !has(t, d, b) {
		t.Error("it is not the same store")
	}
}

// Removing, pruning and evicting look at the names that clayer gives.
func TestOnlyOwnNamesAreRemoved(t *testing.T) {
	d := open(t, Options{MaxSize: 3000})
	a := put(t, d, "a", strings.Repeat("a", 1000))
	m := storetest.Layer("base", 1, a)
	if err := d.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, name := range []string{"blobs/sha256/notes.txt", "blobs/sha256/ABCD", "blobs/sha512/ab", "tmp/notes.txt", "keys/notes.json", "keys/ab/notes.json", "keys/deep/er/x"} {
		path := filepath.Join(d.Path(), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("mine"), 0o644), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := os.Stat(path); err != nil {
				t.Errorf("removed: %v", err)
			}
		}()
	}
	if _, err := d.Remove(t.Context(), []cache.Manifest{m}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"b", "c", "d", "e"} {
		put(t, d, c, strings.Repeat(c, 1000))
	}
	if has(t, d, a) {
		t.Error("what was removed is there")
	}
}

// A FIFO keeps nobody waiting, and no file is read that is far larger than what
// it should be.
func TestNothingInAStoreTakesLong(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"FIFO":   func(path string) error { return unix.Mkfifo(path, 0o644) },
		"socket": func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o644, 0) },
		"dir":    func(path string) error { return os.Mkdir(path, 0o755) },
		"huge": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(`{"digest":"`), 0o644), os.Truncate(path, 1<<40))
		},
	} {
		for _, at := range []string{"index.json", "oci-layout", "lock", "written", "key", "blob", "manifest"} {
			t.Run(at+" that is a "+name, func(t *testing.T) {
				d := open(t, Options{})
				a := put(t, d, "a", "content a")
				if err := d.Complete(t.Context(), storetest.Layer("other", 1, a)); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(d.Path(), at)
				switch at {
				case "key":
					path = d.keyPath(a.Key)
				case "blob":
					path = d.blobPath(a.Digest)
				case "manifest":
					idx, err := d.readIndex()
					if err != nil {
						t.Fatal(err)
					}
					path = d.blobPath(idx.Manifests[0].Digest)
				}
				if err := errors.Join(os.RemoveAll(path), create(path)); err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() { defer close(done); use(t, d.Path()) }()
				select {
				case <-done:
				case <-time.After(time.Minute):
					t.Fatal("it waits")
				}
			})
		}
	}
}

// Whoever may write to a store's files may also have made an inode stamp that fits them.
func TestStampsOfOthersAreNotBelieved(t *testing.T) {
	for name, change := range map[string]func(d *Dir, desc cache.Descriptor) error{
		"another's store":            func(d *Dir, _ cache.Descriptor) error { return os.Chown(d.Path(), 65534, 65534) },
		"a store that all may write": func(d *Dir, _ cache.Descriptor) error { return os.Chmod(d.Path(), 0o777) },
		"another's keys":             func(d *Dir, _ cache.Descriptor) error { return os.Chown(filepath.Join(d.Path(), "keys"), 65534, 65534) },
		"another's key file":         func(d *Dir, desc cache.Descriptor) error { return os.Chown(d.keyPath(desc.Key), 65534, 65534) },
		"a key file all may write":   func(d *Dir, desc cache.Descriptor) error { return os.Chmod(d.keyPath(desc.Key), 0o666) },
		"blobs that all may write": func(d *Dir, _ cache.Descriptor) error {
			return os.Chmod(filepath.Join(d.Path(), "blobs/sha256"), 0o777)
		},
		"a directory that all may use": func(d *Dir, desc cache.Descriptor) error { return os.Chmod(filepath.Dir(d.keyPath(desc.Key)), 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "another's") && os.Geteuid() != 0 {
				t.Skip("not root: nothing can be given away")
			}
			d := open(t, Options{})
			desc := put(t, d, "a", "content")
			sealed := func() bool {
				return d.isStamped(t, desc)
			}
			if !sealed() {
				t.Fatal("it is not sealed to begin with")
			}
			if err := change(d, desc); err != nil {
				t.Fatal(err)
			}
			if sealed() {
				t.Error("the seal is believed")
			}
			f, err := storetest.Open(t, d, desc)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		})
	}
}
