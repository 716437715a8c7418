package dir

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
)

// A blob that is the file that was put is not hashed again; one that is not, or
// that the medium has spoilt, is found out all the same.
func TestSeal(t *testing.T) {
	rewrite := func(t *testing.T, d *Dir, desc cache.Descriptor, content string) {
		t.Helper()
		var k kept
		data, err := os.ReadFile(d.keyPath(desc.Key))
		if err == nil {
			err = json.Unmarshal(data, &k)
		}
		for { // until the clock that file systems have has gone on
			if err == nil {
				err = os.WriteFile(d.blobPath(desc.Digest), []byte(content), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if now := d.seal(t, desc); *now != *k.Seal {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	reseal := func(t *testing.T, d *Dir, desc cache.Descriptor) {
		t.Helper()
		data, err := json.Marshal(kept{desc, d.seal(t, desc)})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.keyPath(desc.Key), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name   string
		change func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor
		sealed bool
		lost   bool
	}{
		{"as it was put", func(_ *testing.T, _ *Dir, desc cache.Descriptor) cache.Descriptor { return desc }, true, false},
		{"written to since", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			rewrite(t, d, desc, "CONTENT")
			return desc
		}, false, true},
		{"written to since, as it was", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			rewrite(t, d, desc, "content")
			return desc
		}, false, false},
		{"another file of the same content", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			if err := os.Remove(d.blobPath(desc.Digest)); err != nil {
				t.Fatal(err)
			}
			rewrite(t, d, desc, "content")
			return desc
		}, false, false},
		{"spoilt by the medium", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			rewrite(t, d, desc, "cOntent")
			reseal(t, d, desc)
			return desc
		}, true, true},
		{"cut off by the medium", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			rewrite(t, d, desc, "cont")
			reseal(t, d, desc)
			return desc
		}, true, true},
		{"of a wrong CRC", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			desc.CRC32C++
			reseal(t, d, desc)
			return desc
		}, true, false}, // the SHA-256 has the last word
		{"of another CRC than was asked for", func(_ *testing.T, _ *Dir, desc cache.Descriptor) cache.Descriptor {
			desc.CRC32C++
			return desc
		}, false, false},
		{"of no CRC", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			desc.CRC32C = 0
			if err := d.Put(t.Context(), desc, strings.NewReader("content")); err != nil {
				t.Fatal(err)
			}
			return desc
		}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := open(t, Options{})
			desc := put(t, d, "a", "content")
			desc = test.change(t, d, desc)
			rc, err := d.Open(t.Context(), desc, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, sealed := rc.(*cache.VerifiedFile)
			if err := rc.Close(); err != nil || sealed != test.sealed {
				t.Errorf("sealed: %t, want %t; %v", sealed, test.sealed, err)
			}
			f, err := cache.OpenVerified(t.Context(), d, desc, "")
			if test.lost {
				var corrupt *cache.CorruptError
				if !errors.As(err, &corrupt) {
					t.Errorf("opened: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := io.ReadAll(f); err != nil || string(got) != "content" {
				t.Errorf("it is %q, %v", got, err)
			}
		})
	}
}

// What Create made, and a blob that another step has already, are sealed too.
func TestSealOfWhatIsThere(t *testing.T) {
	d := open(t, Options{})
	desc, _ := storetest.Step("a", "content")
	f, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	if err := d.Put(t.Context(), desc, f); err != nil {
		t.Fatal(err)
	}
	for _, desc := range []cache.Descriptor{desc, put(t, d, "b", "content")} {
		rc, err := d.Open(t.Context(), desc, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := rc.(*cache.VerifiedFile); !ok {
			t.Errorf("%s: not sealed", desc.Key.Short())
		}
		rc.Close()
	}
}

// What was brought into a file without a name is not written a second time; a file
// that has one is its owner's, and is copied.
func TestPutWithoutACopy(t *testing.T) {
	inode := func(f *os.File) uint64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	brought := func(dir, content string) *os.File {
		f, err := cache.TempFile(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.WriteString(content); err != nil {
			t.Fatal(err)
		}
		return f
	}
	kept := func(d *Dir, desc cache.Descriptor) uint64 {
		f, err := cache.OpenVerified(t.Context(), d, desc, "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, err := io.ReadAll(f); err != nil || string(got) != "content" {
			t.Fatalf("it is %q, %v", got, err)
		}
		return inode(f)
	}
	a, _ := storetest.Step("a", "content")
	b, _ := storetest.Step("b", "content")
	d, other := open(t, Options{}), open(t, Options{})
	f := brought(d.tmp(), "content")
	for _, desc := range []cache.Descriptor{a, b} {
		if err := d.Put(t.Context(), desc, &cache.VerifiedFile{File: f}); err != nil {
			t.Fatal(err)
		}
		if kept(d, desc) != inode(f) {
			t.Error("it was copied")
		}
	}
	if err := other.Put(t.Context(), a, &cache.VerifiedFile{File: f}); err != nil {
		t.Fatal(err)
	}
	if kept(other, a) == inode(f) {
		t.Error("two stores have one file")
	}
	c, _ := storetest.Step("c", "long content")
	var corrupt *cache.CorruptError
	if err := d.Put(t.Context(), c, &cache.VerifiedFile{File: brought(d.tmp(), "short")}); !errors.As(err, &corrupt) {
		t.Errorf("a file that is cut off: %v", err)
	}
	if left, err := os.ReadDir(d.tmp()); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	for _, path := range []string{d.blobPath(a.Digest), other.blobPath(a.Digest)} {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
			t.Errorf("%v, %v", info, err)
		}
	}
}
