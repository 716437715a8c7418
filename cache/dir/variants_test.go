package dir

import (
	"os"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/dag/key"
)

// two returns a store with two snapshots of a step.
func two(t *testing.T) (d *Dir, a, b cache.Descriptor) {
	t.Helper()
	d = open(t, Options{})
	a, blobA := storetest.Variant("a", "for one", "libone")
	b, blobB := storetest.Variant("a", "for two", "libtwo")
	for _, put := range []struct {
		cache.Descriptor
		*cache.Blob
	}{{a, blobA}, {b, blobB}} {
		if err := d.Put(t.Context(), put.Descriptor, put.Blob); err != nil {
			t.Fatal(err)
		}
	}
	return d, a, b
}

func (d *Dir) variants(t *testing.T, k key.Key) (digests []string) {
	t.Helper()
	all, err := d.Variants(t.Context(), "", []key.Key{k})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all[k] {
		digests = append(digests, f.Digest.String())
	}
	return digests
}

func TestVariantsThatLie(t *testing.T) {
	d, a, b := two(t)
	other, _ := storetest.Variant("b", "for two", "libtwo")
	second := d.path + "/" + variantName(a.Key, 2)
	good, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"another key":  string(d.encode(t, other)),
		"no JSON":      "{",
		"another blob": `{"key":"` + a.Key.String() + `","digest":"sha256:00"}`,
	} {
		if err := os.WriteFile(second, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := d.variants(t, a.Key); len(got) != 1 || got[0] != a.Digest.String() {
			t.Errorf("%s: %v", name, got)
		}
		// It is as good as not there: a Put takes the place.
		_, blob := storetest.Variant("a", "for two", "libtwo")
		if err := d.Put(t.Context(), b, blob); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(second); err != nil || len(got) != len(good) {
			t.Errorf("%s: %d bytes, %v, want those of before", name, len(got), err)
		}
	}
	// A gap in the numbers hides nothing, and is filled.
	if err := os.Rename(second, d.path+"/"+variantName(a.Key, 4)); err != nil {
		t.Fatal(err)
	}
	// Nobody looks at what has a number of its own invention.
	if err := os.WriteFile(d.path+"/keys/"+a.Key.String()[:2]+"/"+a.Key.String()+".5.json", good, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := d.variants(t, a.Key); len(got) != 2 {
		t.Errorf("with a gap: %v, want 2", got)
	}
	c, blobC := storetest.Variant("a", "for three", "libthree")
	if err := d.Put(t.Context(), c, blobC); err != nil {
		t.Fatal(err)
	}
	if got := d.variants(t, a.Key); len(got) != 3 || got[1] != c.Digest.String() {
		t.Errorf("in the gap: %v, want %s as the second", got, c.Digest)
	}
}

func (d *Dir) encode(t *testing.T, desc cache.Descriptor) []byte {
	t.Helper()
	data, _, err := cache.JSON("", stored{desc, nil})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The first snapshot is the one that Find returns: where it goes, the next one is it.
func TestEvictionOfTheFirstVariant(t *testing.T) {
	d, a, b := two(t)
	if err := os.Chtimes(d.keyPath(a.Key), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	d.max = a.Size + b.Size - 1
	if err := d.evictNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := d.Find(t.Context(), "", []key.Key{a.Key})
	if err != nil || found[a.Key].Digest != b.Digest {
		t.Errorf("found %v, %v, want the second snapshot", found, err)
	}
	if got := d.variants(t, a.Key); len(got) != 1 {
		t.Errorf("%v are left, want one", got)
	}
}

// A snapshot that has gone bad does not keep the place of its variant.
func TestVariantThatHasGoneBad(t *testing.T) {
	d, a, _ := two(t)
	if err := os.WriteFile(d.blobPath(a.Digest), []byte("FOR ONE"), 0o644); err != nil {
		t.Fatal(err)
	}
	again, blob := storetest.Variant("a", "for one, again", "libone")
	if err := d.Put(t.Context(), again, blob); err != nil {
		t.Fatal(err)
	}
	if found, err := d.Find(t.Context(), "", []key.Key{a.Key}); err != nil || found[a.Key].Digest != again.Digest {
		t.Errorf("found %v, %v, want what was put again", found, err)
	}
}

// Where the blob or the key file of the first snapshot is lost, the next one is found.
func TestFirstVariantThatIsLost(t *testing.T) {
	for name, lose := range map[string]func(d *Dir, a cache.Descriptor) error{
		"its blob is gone":        func(d *Dir, a cache.Descriptor) error { return os.Remove(d.blobPath(a.Digest)) },
		"its blob is cut off":     func(d *Dir, a cache.Descriptor) error { return os.Truncate(d.blobPath(a.Digest), 1) },
		"its key file is damaged": func(d *Dir, a cache.Descriptor) error { return os.WriteFile(d.keyPath(a.Key), []byte("{"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			d, a, b := two(t)
			if err := lose(d, a); err != nil {
				t.Fatal(err)
			}
			found, err := d.Find(t.Context(), "", []key.Key{a.Key})
			if err != nil || found[a.Key].Digest != b.Digest || found[a.Key].Variant != 0 {
				t.Errorf("found %v, %v, want the second snapshot", found, err)
			}
			if got := storetest.Read(t, d, b); got != "for two" {
				t.Errorf("%q", got)
			}
		})
	}
}
