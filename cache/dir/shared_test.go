package dir

import (
	"context"
	_ "crypto/sha512" // of a digest that clayer itself has none of
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specsgo "github.com/opencontainers/image-spec/specs-go"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
)

// A foreign is what another tool does with a layout: blobs first, the index last.
type foreign struct {
	t    *testing.T
	path string
	all  []digest.Digest // what it wrote
}

func (f *foreign) blob(mediaType, content string) specs.Descriptor {
	f.t.Helper()
	dg := digest.FromString(content)
	path := filepath.Join(f.path, "blobs", "sha256", dg.Encoded())
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		f.t.Fatal(err)
	}
	f.all = append(f.all, dg)
	return specs.Descriptor{MediaType: mediaType, Digest: dg, Size: int64(len(content))}
}

func (f *foreign) json(mediaType string, v any) specs.Descriptor {
	f.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.blob(mediaType, string(data))
}

// image writes an image of one layer of that many bytes, for an architecture.
func (f *foreign) image(arch string, size int) specs.Descriptor {
	layer := f.blob(specs.MediaTypeImageLayer, arch+strings.Repeat("x", size))
	platform := specs.Platform{OS: "linux", Architecture: arch}
	desc := f.json(specs.MediaTypeImageManifest, specs.Manifest{
		Versioned: specsgo.Versioned{SchemaVersion: 2}, MediaType: specs.MediaTypeImageManifest,
		Config: f.json(specs.MediaTypeImageConfig, specs.Image{Platform: platform, RootFS: specs.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}}),
		Layers: []specs.Descriptor{layer},
	})
	desc.Platform = &platform
	return desc
}

func (f *foreign) index(of ...specs.Descriptor) specs.Descriptor {
	return f.json(specs.MediaTypeImageIndex, specs.Index{Versioned: specsgo.Versioned{SchemaVersion: 2}, MediaType: specs.MediaTypeImageIndex, Manifests: of})
}

// list adds an entry to index.json, which has fields that clayer does not know.
func (f *foreign) list(desc specs.Descriptor, tag string) {
	f.t.Helper()
	path := filepath.Join(f.path, "index.json")
	idx := map[string]any{"schemaVersion": 2}
	if data, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(data, &idx); err != nil {
			f.t.Fatal(err)
		}
	}
	manifests, _ := idx["manifests"].([]any)
	idx["manifests"] = append(manifests, map[string]any{
		"mediaType": desc.MediaType, "digest": desc.Digest, "size": desc.Size,
		"annotations": map[string]string{specs.AnnotationRefName: tag}, "org.example.unknown": tag,
	})
	idx["org.example.top"] = "renamed"
	data, err := json.Marshal(idx)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *foreign) check(when string, tags ...string) {
	f.t.Helper()
	for _, dg := range f.all {
		data, err := os.ReadFile(filepath.Join(f.path, "blobs", "sha256", dg.Encoded()))
		if err != nil || digest.FromBytes(data) != dg {
			f.t.Errorf("%s: a blob of another tool: %v", when, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(f.path, "index.json"))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, tag := range tags {
		if !strings.Contains(string(data), `"org.example.unknown":"`+tag+`"`) || !strings.Contains(string(data), `"org.example.top":"renamed"`) {
			f.t.Errorf("%s: the entry %s of another tool is not what it was: %s", when, tag, data)
		}
	}
}

// What other tools keep in the same layout stays, and counts for no bound.
func TestImagesOfOtherToolsStay(t *testing.T) {
	d := open(t, Options{MaxSize: 5000})
	f := &foreign{t: t, path: d.Path()}
	multi := f.index(f.image("amd64", 3000), f.index(f.image("arm64", 3000), f.image("riscv64", 10)))
	f.list(f.image("single", 4000), "single")
	f.list(multi, "multi")
	sha512 := specs.Descriptor{MediaType: specs.MediaTypeImageManifest, Digest: digest.SHA512.FromString("x"), Size: 1}
	f.list(sha512, "sha512")
	f.list(specs.Descriptor{MediaType: "application/json", Digest: "nonsense"}, "nonsense")
	f.blob(specs.MediaTypeImageLayer, "written before its index"+strings.Repeat("y", 2000))
	tags := []string{"single", "multi", "sha512", "nonsense"}

	var steps []cache.Descriptor
	for i := range 4 {
		s := put(t, d, fmt.Sprint(i), strings.Repeat(fmt.Sprint(i), 1000))
		if err := d.Complete(t.Context(), storetest.Layer(fmt.Sprint("l", i), i, s)); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i-60) * time.Minute)
		os.Chtimes(d.keyPath(s.Key), at, at)
		steps = append(steps, s)
		f.check(fmt.Sprint("after step ", i), tags...)
	}
	if has(t, d, steps[0]) || !has(t, d, steps[2]) || !has(t, d, steps[3]) {
		t.Errorf("of 5000 bytes for steps of 1000 and their layers, those are there: %t %t %t %t",
			has(t, d, steps[0]), has(t, d, steps[1]), has(t, d, steps[2]), has(t, d, steps[3]))
	}
	freed, err := d.Remove(t.Context(), []cache.Manifest{storetest.Layer("l3", 3, steps[3])})
	if err != nil || freed < 1000 || freed > 3000 {
		t.Errorf("removed %d bytes, %v", freed, err)
	}
	f.check("after Remove", tags...)
	if _, _, err := cache.Prune(t.Context(), d, 0, 0, false); err != nil {
		t.Fatal(err)
	}
	f.check("after Prune", tags...)
	if left, err := d.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	d.max = 1
	put(t, d, "last", "last")
	f.check("after all was evicted", tags...)
	if entries, err := os.ReadDir(filepath.Join(d.Path(), "blobs", "sha256")); err != nil || len(entries) != len(f.all)+1 {
		t.Errorf("%d blobs, want %d of the other tool and the last step, %v", len(entries), len(f.all), err)
	}
}

// A blob of clayer's that another tool's image has too stays with that image.
func TestBlobThatAnotherImageHasTooStays(t *testing.T) {
	d := open(t, Options{})
	content := strings.Repeat("s", 1000)
	s := put(t, d, "s", content)
	m := storetest.Layer("base", 1, s)
	if err := d.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	f := &foreign{t: t, path: d.Path()}
	f.list(f.index(f.json(specs.MediaTypeImageManifest, specs.Manifest{
		Config: f.json(specs.MediaTypeImageConfig, specs.Image{}),
		Layers: []specs.Descriptor{f.blob(specs.MediaTypeImageLayer, content)},
	})), "theirs")
	// Another name for clayer's own image is the user's.
	idx, err := d.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	f.all = append(f.all, idx.Manifests[0].Digest)
	f.list(idx.Manifests[0].Descriptor, "mine")
	if _, err := d.Remove(t.Context(), []cache.Manifest{m}); err != nil {
		t.Fatal(err)
	}
	f.check("after Remove", "theirs", "mine")
	d.max = 1
	put(t, d, "other", "other")
	f.check("after all was evicted", "theirs", "mine")
}

// A blob that was there before clayer wrote the same one is the other tool's.
func TestBlobThatWasThereBeforeIsNotOwn(t *testing.T) {
	d := open(t, Options{})
	f := &foreign{t: t, path: d.Path()}
	f.blob(specs.MediaTypeImageLayer, "content")
	a := put(t, d, "a", "content")
	f.blob(specs.MediaTypeImageLayer, "spooled")
	b, _ := storetest.Step("b", "spooled")
	if err := d.Put(t.Context(), b, spooled(t, d, "spooled")); err != nil {
		t.Fatal(err)
	}
	m := storetest.Layer("base", 1, a, b)
	if err := d.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Remove(t.Context(), []cache.Manifest{m}); err != nil {
		t.Fatal(err)
	}
	f.check("after Remove")
}

// What a process that was killed wrote, and did not list yet, is removed later.
func TestWhatWasWrittenAndNeverListedIsRemoved(t *testing.T) {
	d := open(t, Options{})
	a, b := put(t, d, "a", "content a"), put(t, d, "b", "content b")
	m := storetest.Layer("base", 1, a)
	if err := d.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.keyPath(b.Key)); err != nil { // as if it had never been written
		t.Fatal(err)
	}
	if _, err := d.Remove(t.Context(), []cache.Manifest{m}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(d.Path(), "blobs", "sha256")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A store of before the record of what was written has blobs of its own too.
func TestStoreWithoutARecordOfWhatWasWritten(t *testing.T) {
	d := open(t, Options{})
	f := &foreign{t: t, path: d.Path()}
	a, b := put(t, d, "a", "content a"), put(t, d, "b", "content b")
	m := storetest.Layer("base", 1, a)
	if err := d.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	f.list(f.image("theirs", 100), "theirs")
	f.blob(specs.MediaTypeImageLayer, "not yet listed")
	if err := os.Remove(filepath.Join(d.Path(), "written")); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Remove(t.Context(), []cache.Manifest{m}); err != nil || n == 0 {
		t.Errorf("removed %d bytes, %v", n, err)
	}
	f.check("after Remove", "theirs")
	d.max = 1
	put(t, d, "c", "content c")
	if has(t, d, b) {
		t.Error("it was not evicted")
	}
	f.check("after eviction", "theirs")
}

// A damaged index is replaced, and what it was is renamed for whoever can mend it.
func TestDamagedIndexIsRenamed(t *testing.T) {
	d := open(t, Options{})
	a := put(t, d, "a", "content a")
	if err := os.WriteFile(d.indexPath(), []byte(`{"manifests":[{"digest":"sha256:`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Complete(t.Context(), storetest.Layer("base", 1, a)); err != nil {
		t.Fatal(err)
	}
	renamed, err := filepath.Glob(d.indexPath() + ".damaged*")
	if err != nil || len(renamed) != 1 {
		t.Fatalf("renamed: %v, %v", renamed, err)
	}
	if data, err := os.ReadFile(renamed[0]); err != nil || string(data) != `{"manifests":[{"digest":"sha256:` {
		t.Errorf("%q, %v", data, err)
	}
}

func TestIndexWithManyBadEntries(t *testing.T) {
	for name, entry := range map[string]string{
		"empty":      `{}`,
		"bad digest": `{"digest":"sha256:zz"}`,
		"no blob":    `{"digest":"sha256:` + strings.Repeat("ab", 32) + `"}`,
		"a layer's":  `{"digest":"sha256:` + strings.Repeat("ab", 32) + `","annotations":{"org.opencontainers.image.ref.name":"layer-base-0123456789abcdef"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, Options{})
			put(t, d, "a", "content a")
			if err := os.WriteFile(d.indexPath(), []byte(`{"manifests":[`+strings.Repeat(entry+",", 300_000)+entry+`]}`), 0o644); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			use(t, d.Path())
			// Without a bound it is more than a minute, on a machine that does nothing else.
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("it took %v", took)
			} else {
				t.Logf("it took %v", took)
			}
		})
	}
}

// skopeo runs skopeo on layouts; it has a policy of its own to trust what is local.
func skopeo(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	if out, err := exec.Command(path, append([]string{"--insecure-policy"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// An image that skopeo copied into the store can be copied out of it when clayer
// has evicted all that is its own.
func TestSkopeoSharesTheStore(t *testing.T) {
	d := open(t, Options{})
	from := t.TempDir()
	f := &foreign{t: t, path: from}
	f.list(f.image("amd64", 10), "single")
	f.list(f.index(f.image("amd64", 20), f.image("arm64", 20)), "multi")
	if err := os.WriteFile(filepath.Join(from, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	a := put(t, d, "a", "content a")
	m := storetest.Layer("base", 1, a)
	if err := d.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	skopeo(t, "copy", "oci:"+from+":single", "oci:"+d.Path()+":single")
	skopeo(t, "copy", "--all", "oci:"+from+":multi", "oci:"+d.Path()+":multi")
	if list, err := d.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("layers: %v, %v", list, err)
	}
	d.max = 1
	put(t, d, "b", "content b")
	if _, err := d.Remove(t.Context(), []cache.Manifest{m}); err != nil {
		t.Fatal(err)
	}
	skopeo(t, "copy", "oci:"+d.Path()+":single", "oci:"+t.TempDir()+":out")
	skopeo(t, "copy", "--all", "oci:"+d.Path()+":multi", "oci:"+t.TempDir()+":out")
}

// What clayer wrote and another image reaches stays, and is looked for once: with more
// of it than fits the bound, each Put would read all indexes.
func TestSharedBlobsAreCountedOnce(t *testing.T) {
	d := open(t, Options{MaxSize: 3000})
	content := strings.Repeat("s", 5000)
	s := put(t, d, "s", content)
	f := &foreign{t: t, path: d.Path()}
	f.list(f.json(specs.MediaTypeImageManifest, specs.Manifest{
		Config: f.json(specs.MediaTypeImageConfig, specs.Image{}),
		Layers: []specs.Descriptor{f.blob(specs.MediaTypeImageLayer, content)},
	}), "theirs")
	a := put(t, d, "a", "content a") // counts
	root, err := d.root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	unlock, err := d.lock(t.Context(), root, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	b, blob := storetest.Step("b", "content b")
	if err := d.Put(ctx, b, blob); err != nil {
		t.Errorf("a Put that evicts nothing: %v", err)
	}
	unlock()
	f.list(f.index(), "another") // it may reach less, or more
	big := put(t, d, "big", strings.Repeat("b", 2990))
	if !has(t, d, s) || has(t, d, a) || !has(t, d, b) || !has(t, d, big) {
		t.Error("with another index: the oldest step that is clayer's alone was not evicted, or another one was")
	}
}

// What other tools have in the layout, however much, keeps no Put waiting: nothing is
// to be evicted for it, which would want the store for itself.
func TestBlobsOfOtherToolsDelayNothing(t *testing.T) {
	d := open(t, Options{MaxSize: 3000})
	a := put(t, d, "a", "content")
	other := filepath.Join(d.Path(), blobName(digest.FromString("other")))
	if err := os.WriteFile(other, make([]byte, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := d.root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	unlock, err := d.lock(t.Context(), root, false)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	b, blob := storetest.Step("b", "content b")
	if err := d.Put(ctx, b, blob); err != nil {
		t.Error(err)
	}
	if !has(t, d, a) || !has(t, d, b) {
		t.Error("a step is gone")
	}
}
