package dir

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
)

// JSON that is whole but says nothing sensible costs a layer, never the process.
func TestNonsenseInTheStore(t *testing.T) {
	whole := func(t *testing.T) (*Dir, cache.Descriptor) {
		d := open(t, Options{})
		a := put(t, d, "a", "a")
		if err := d.Complete(t.Context(), storetest.Layer("base", 1, a)); err != nil {
			t.Fatal(err)
		}
		return d, a
	}
	write := func(t *testing.T, path, data string) {
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	manifestPath := func(t *testing.T, d *Dir) string {
		idx, err := d.readIndex()
		if err != nil {
			t.Fatal(err)
		}
		return d.blobPath(idx.Manifests[0].Digest)
	}
	damages := map[string]func(t *testing.T, d *Dir, a cache.Descriptor){
		"an index entry of no digest": func(t *testing.T, d *Dir, _ cache.Descriptor) { write(t, d.indexPath(), `{"manifests":[{}]}`) },
		"an index entry of a bad one": func(t *testing.T, d *Dir, _ cache.Descriptor) {
			write(t, d.indexPath(), `{"manifests":[{"digest":"sha256:zz"}]}`)
		},
		"an index that is a list":      func(t *testing.T, d *Dir, _ cache.Descriptor) { write(t, d.indexPath(), `[]`) },
		"an index that is null":        func(t *testing.T, d *Dir, _ cache.Descriptor) { write(t, d.indexPath(), `null`) },
		"a manifest that is empty":     func(t *testing.T, d *Dir, _ cache.Descriptor) { write(t, manifestPath(t, d), `{}`) },
		"a manifest of nameless blobs": func(t *testing.T, d *Dir, _ cache.Descriptor) { write(t, manifestPath(t, d), `{"layers":[{}]}`) },
		"a key file that is empty":     func(t *testing.T, d *Dir, a cache.Descriptor) { write(t, d.keyPath(a.Key), `{}`) },
		"an index of another tool": func(t *testing.T, d *Dir, _ cache.Descriptor) {
			idx, err := d.readIndex()
			if err != nil {
				t.Fatal(err)
			}
			const nested = `{"schemaVersion":2,"manifests":[]}`
			x := idx.Manifests[0]
			x.raw, x.Digest, x.Size, x.Annotations = nil, digest.FromString(nested), int64(len(nested)), nil
			write(t, d.blobPath(x.Digest), nested)
			idx.Manifests = append(idx.Manifests, x)
			if err := d.writeIndex(idx); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			d, a := whole(t)
			damage(t, d, a)
			if _, err := d.List(t.Context()); err != nil {
				t.Error("List:", err)
			}
			if _, err := d.Remove(t.Context(), []cache.Manifest{storetest.Layer("base", 1, a)}); err != nil {
				t.Error("Remove:", err)
			}
			d, a = whole(t)
			damage(t, d, a)
			d.max = 1
			b := put(t, d, "b", "bbb") // evicts
			if !has(t, d, b) {
				t.Error("what was put is not there")
			}
		})
	}
	t.Run("a step of no digest", func(t *testing.T) {
		d, _ := whole(t)
		m := storetest.Layer("none", 1, cache.Descriptor{})
		if err := d.Complete(t.Context(), m); err == nil {
			t.Error("a layer of a step without a digest is complete")
		}
	})
}

func TestANegativeSizeEvictsNothingElse(t *testing.T) {
	d := open(t, Options{MaxSize: 5000})
	a, b := put(t, d, "a", strings.Repeat("a", 1000)), put(t, d, "b", strings.Repeat("b", 1000))
	data, err := os.ReadFile(d.keyPath(a.Key))
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(data), `"size":1000`, `"size":-1000000`, 1)
	if err := os.WriteFile(d.keyPath(a.Key), []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	os.Chtimes(d.keyPath(a.Key), old, old)
	put(t, d, "c", strings.Repeat("c", 4000))
	if !has(t, d, b) {
		t.Error("all was evicted")
	}
}

// A blob of several keys frees its bytes with the last of them.
func TestBoundWithSharedBlobs(t *testing.T) {
	d := open(t, Options{MaxSize: 3500})
	for i := range 5 {
		desc := put(t, d, fmt.Sprint("shared ", i), strings.Repeat("s", 1000))
		at := time.Now().Add(time.Duration(i-60) * time.Minute)
		os.Chtimes(d.keyPath(desc.Key), at, at)
	}
	for _, c := range []string{"x", "y", "z"} {
		put(t, d, c, strings.Repeat(c, 1000))
		if n, err := d.size(); err != nil || n > 3500 {
			t.Errorf("after %s: %d bytes, %v", c, n, err)
		}
	}
}

// A spool file serves two keys of the same bytes, and a second try.
func TestCreateIsPutTwice(t *testing.T) {
	d := open(t, Options{})
	a, _ := storetest.Step("a", "content")
	b, _ := storetest.Step("b", "content")
	f := spooled(t, d, "content")
	for _, desc := range []cache.Descriptor{a, a, b} {
		if err := d.Put(t.Context(), desc, f); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(d.blobPath(a.Digest)); err != nil { // evicted meanwhile
		t.Fatal(err)
	}
	if err := d.Put(t.Context(), b, f); err != nil || !has(t, d, b) {
		t.Errorf("after it was evicted: %v", err)
	}
}
