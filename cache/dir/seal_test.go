package dir

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
)

// A blob that is the file that was put is not hashed again; one that is not, or
// that the medium has spoilt, is found out all the same.
func TestSeal(t *testing.T) {
	rewrite := func(t *testing.T, d *Dir, desc cache.Descriptor, content string) {
		t.Helper()
		if err := os.WriteFile(d.blobPath(desc.Digest), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	reseal := func(t *testing.T, d *Dir, desc cache.Descriptor) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(d.blobPath(desc.Digest), &st); err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(kept{desc, sealOf(&st)})
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
			_, sealed := rc.(*cache.SealedFile)
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
		if _, ok := rc.(*cache.SealedFile); !ok {
			t.Errorf("%s: not sealed", desc.Key.Short())
		}
		rc.Close()
	}
}
