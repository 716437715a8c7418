package dir

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/internal/durability"
)

// A blob that is the file that was put is not hashed again; one that is not, or
// that the medium has spoilt, is found out all the same.
func TestStamp(t *testing.T) {
	rewrite := func(t *testing.T, d *Dir, desc cache.Descriptor, content string) {
		t.Helper()
		var k stored
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
			if now := d.stamp(t, desc); *now != *k.Stamp {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	restamp := func(t *testing.T, d *Dir, desc cache.Descriptor) {
		t.Helper()
		data, err := json.Marshal(stored{desc, d.stamp(t, desc)})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.keyPath(desc.Key), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name    string
		change  func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor
		stamped bool
		lost    bool
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
			restamp(t, d, desc)
			return desc
		}, true, true},
		{"cut off by the medium", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			rewrite(t, d, desc, "cont")
			restamp(t, d, desc)
			return desc
		}, true, true},
		{"of a wrong CRC", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			desc.CRC32C++
			restamp(t, d, desc)
			return desc
		}, true, false}, // the SHA-256 has the last word
		{"of another CRC than was asked for", func(_ *testing.T, _ *Dir, desc cache.Descriptor) cache.Descriptor {
			desc.CRC32C++
			return desc
		}, false, false},
		{"of no CRC", func(t *testing.T, d *Dir, desc cache.Descriptor) cache.Descriptor {
			desc.CRC32C = 0
			if err := d.Put(t.Context(), desc, storetest.Blob("content")); err != nil {
				t.Fatal(err)
			}
			return desc
		}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := open(t, Options{})
			desc := put(t, d, "a", "content")
			desc = test.change(t, d, desc)
			if stamped := d.isStamped(t, desc); stamped != test.stamped {
				t.Errorf("stamped: %t, want %t", stamped, test.stamped)
			}
			f, err := storetest.Open(t, d, desc)
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

// What Create made, and a blob that another step has already, are stamped too.
func TestStampOfWhatIsThere(t *testing.T) {
	d := open(t, Options{})
	desc, _ := storetest.Step("a", "content")
	if err := d.Put(t.Context(), desc, spooled(t, d, "content")); err != nil {
		t.Fatal(err)
	}
	for _, desc := range []cache.Descriptor{desc, put(t, d, "b", "content")} {
		if !d.isStamped(t, desc) {
			t.Errorf("%s: no stamp", desc.Key.Short())
		}
	}
}

// What was fetched into an anonymous temp file is not written a second time; a file
// that has a name is its store's, and is copied.
func TestPutWithoutACopy(t *testing.T) {
	fetched := func(d *Dir, content string) *cache.Blob {
		b, err := cache.Create(d.tmp())
		if err == nil {
			_, err = io.WriteString(b, content)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		b.Packed(digest.FromString("content"))
		return b
	}
	inode := func(d *Dir, desc cache.Descriptor) uint64 {
		if got := storetest.Read(t, d, desc); got != "content" {
			t.Fatalf("it is %q", got)
		}
		return d.stamp(t, desc).Inode
	}
	a, _ := storetest.Step("a", "content")
	b, _ := storetest.Step("b", "content")
	d, other := open(t, Options{}), open(t, Options{})
	blob := fetched(d, "content")
	for _, desc := range []cache.Descriptor{a, b} {
		if err := d.Put(t.Context(), desc, blob); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := blob.Link(tmpRoot(t, d), "again"); err == nil {
		t.Error("it was copied")
	}
	if inode(d, a) != inode(d, b) {
		t.Error("two keys have two files")
	}
	if err := other.Put(t.Context(), a, blob); err != nil {
		t.Fatal(err)
	}
	if inode(other, a) == inode(d, a) {
		t.Error("two stores have one file")
	}
	var fromStore cache.Blob
	defer fromStore.Close()
	if err := cache.Fetch(t.Context(), d, a, &fromStore); err != nil {
		t.Fatal(err)
	}
	third := open(t, Options{})
	if err := third.Put(t.Context(), a, &fromStore); err != nil || inode(third, a) == inode(d, a) {
		t.Errorf("a file of another store was linked; %v", err)
	}
	var corrupt *cache.CorruptError
	if err := open(t, Options{}).Put(t.Context(), a, fetched(d, "cut")); !errors.As(err, &corrupt) {
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

// A store whose machine ends with its session syncs what was put into it when the command
// ends, and one whose machine stays has nothing left to sync then.
func TestSettle(t *testing.T) {
	for _, how := range []durability.Setting{durability.Always, durability.AtEnd, durability.Never} {
		d, err := Open(t.TempDir(), Options{Durability: durability.Policy{Setting: how}})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Settle(); err != nil || d.unsynced.Load() {
			t.Errorf("setting %d: settle of an empty store: %v", how, err)
		}
		root, err := d.init(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		root.Close()
		if want := how != durability.Always; d.unsynced.Load() != want {
			t.Errorf("setting %d: unsynced %t, want %t", how, !want, want)
		}
		if err := d.Settle(); err != nil || d.unsynced.Load() {
			t.Errorf("setting %d: settle: %v", how, err)
		}
	}
}
