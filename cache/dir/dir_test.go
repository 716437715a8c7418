package dir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/safefile"
)

// TestMain runs the test binary as a process that puts steps: see TestTwoProcesses.
func TestMain(m *testing.M) {
	if path := os.Getenv("STORE_PUTTER"); path != "" {
		d, err := Open(path, Options{})
		for i := 0; err == nil && i < 30; i++ {
			desc, blob := storetest.Step(fmt.Sprint(i), fmt.Sprint("content ", i))
			if err = d.Put(context.Background(), desc, blob); err == nil {
				err = d.Complete(context.Background(), storetest.Layer(fmt.Sprint(i), i, desc))
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func open(t testing.TB, opt Options) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "store"), opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func put(t testing.TB, d *Dir, name, content string) cache.Descriptor {
	t.Helper()
	desc, blob := storetest.Step(name, content)
	defer blob.Close()
	if err := d.Put(context.Background(), desc, blob); err != nil {
		t.Fatal(err)
	}
	return desc
}

func has(t testing.TB, d *Dir, desc cache.Descriptor) bool {
	t.Helper()
	found, err := d.Find(context.Background(), "", []key.Key{desc.Key})
	if err != nil {
		t.Fatal(err)
	}
	return len(found) == 1
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) cache.Store { return open(t, Options{}) })
	storetest.RunVariants(t, func(t *testing.T) cache.Store { return open(t, Options{}) })
}

func TestTier(t *testing.T) {
	storetest.Run(t, func(t *testing.T) cache.Store {
		return cache.Tiered(func(store string, err error) { t.Errorf("%s: %v", store, err) }, open(t, Options{}), open(t, Options{}))
	})
}

func TestLookingChangesNothing(t *testing.T) {
	d := open(t, Options{})
	desc, _ := storetest.Step("a", "a")
	has(t, d, desc)
	d.List(t.Context())
	d.Fetch(t.Context(), desc, &cache.Blob{})
	d.Remove(t.Context(), []cache.Manifest{storetest.Layer("base", 1, desc)})
	if _, err := os.Stat(d.Path()); err == nil {
		t.Error("the folder was made")
	}
}

// The directory is an OCI image layout: index, manifest, config, layers, each with
// its digest and size.
func TestIsAnImageLayout(t *testing.T) {
	d := open(t, Options{})
	a, b := put(t, d, "a", "content a"), put(t, d, "b", "content b")
	if err := d.Complete(t.Context(), storetest.Layer("base", 1, a, b)); err != nil {
		t.Fatal(err)
	}
	readJSON := func(path string, v any) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, v); err != nil {
			t.Fatal(err)
		}
	}
	blob := func(desc specs.Descriptor, v any) {
		t.Helper()
		path := filepath.Join(d.Path(), "blobs", "sha256", desc.Digest.Encoded())
		data, err := os.ReadFile(path)
		if err != nil || int64(len(data)) != desc.Size || digest.FromBytes(data) != desc.Digest {
			t.Fatalf("blob %s: %d bytes, %v", desc.Digest, len(data), err)
		}
		if v != nil {
			readJSON(path, v)
		}
	}
	var layout specs.ImageLayout
	readJSON(filepath.Join(d.Path(), specs.ImageLayoutFile), &layout)
	var index specs.Index
	readJSON(filepath.Join(d.Path(), specs.ImageIndexFile), &index)
	if layout.Version != "1.0.0" || index.SchemaVersion != 2 || len(index.Manifests) != 1 {
		t.Fatalf("layout %v, index %v", layout, index)
	}
	if got, want := index.Manifests[0].Annotations[specs.AnnotationRefName], "layer-base-"+b.Key.Short(); got != want {
		t.Errorf("name %s, want %s", got, want)
	}
	var manifest specs.Manifest
	blob(index.Manifests[0], &manifest)
	var config specs.Image
	blob(manifest.Config, &config)
	if len(manifest.Layers) != 2 || len(config.RootFS.DiffIDs) != 2 || config.RootFS.DiffIDs[1] != b.DiffID || len(config.History) != 2 ||
		config.OS != "linux" || config.Architecture != "amd64" {
		t.Errorf("manifest %+v\nconfig %+v", manifest, config)
	}
	for _, l := range manifest.Layers {
		blob(l, nil)
		if l.MediaType != "application/vnd.oci.image.layer.v1.tar+zstd" {
			t.Errorf("media type %s", l.MediaType)
		}
	}
}

func TestBoundedLeastRecentlyUsedFirst(t *testing.T) {
	content := func(c string) string { return strings.Repeat(c, 1000) }
	d := open(t, Options{MaxSize: 3500})
	var steps []cache.Descriptor
	for i, c := range []string{"a", "b", "c"} {
		desc := put(t, d, c, content(c))
		at := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(d.keyPath(desc.Key), at, at); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, desc)
	}
	// Reading a makes it the last used.
	var inUse cache.Blob
	if err := d.Fetch(t.Context(), steps[0], &inUse); err != nil {
		t.Fatal(err)
	}
	defer inUse.Close()
	e := put(t, d, "e", content("e"))
	for i, want := range []bool{true, false, true} {
		if got := has(t, d, steps[i]); got != want {
			t.Errorf("step %d is there: %t, want %t", i, got, want)
		}
	}
	if !has(t, d, e) {
		t.Error("what was put is not there")
	}
	if n, err := d.size(); err != nil || n > 3500 {
		t.Errorf("%d bytes, %v", n, err)
	}
	// Larger than the bound: it is what is needed now.
	huge := put(t, d, "huge", content("huge"))
	if !has(t, d, huge) {
		t.Error("a blob larger than the bound is not there after its Put")
	}
	if n, _ := os.ReadDir(filepath.Join(d.Path(), "blobs", "sha256")); len(n) != 1 {
		t.Errorf("%d blobs beside it", len(n)-1)
	}
}

func TestLayerThatLostAStepIsForgotten(t *testing.T) {
	d := open(t, Options{})
	a, b := put(t, d, "a", strings.Repeat("a", 1000)), put(t, d, "b", strings.Repeat("b", 1000))
	if err := d.Complete(t.Context(), storetest.Layer("ab", 1, a, b)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(d.keyPath(a.Key), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	n, err := d.size()
	if err != nil {
		t.Fatal(err)
	}
	d.max = n + 100 // what comes is larger, but than a step
	put(t, d, "c", strings.Repeat("c", 500))
	if list, err := d.List(t.Context()); err != nil || len(list) != 0 || has(t, d, a) || !has(t, d, b) {
		t.Errorf("layers %v, %v; a is there: %t, b: %t", list, err, has(t, d, a), has(t, d, b))
	}
}

// spooled returns what Create made, packed.
func spooled(t testing.TB, d *Dir, content string) *cache.Blob {
	t.Helper()
	b, err := d.Create()
	if err == nil {
		_, err = io.WriteString(b, content)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	b.Packed(digest.FromString(content))
	return b
}

// What Create made is not copied.
func TestCreateIsLinked(t *testing.T) {
	d := open(t, Options{})
	desc, _ := storetest.Step("a", "content")
	b := spooled(t, d, "content")
	if err := d.Put(t.Context(), desc, b); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Link(tmpRoot(t, d), "again"); err == nil {
		t.Error("it was copied")
	}
	if err := b.Close(); err != nil || !has(t, d, desc) {
		t.Errorf("Close removed what was put, %v", err)
	}
	spooled(t, d, "never put").Close()
	if left, _ := os.ReadDir(d.tmp()); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func tmpRoot(t *testing.T, d *Dir) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(d.tmp())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// A blob that was linked into the store before is put again: under its key,
// under another, and into a second store in the same directory.
func TestPutOfWhatWasLinkedBefore(t *testing.T) {
	d := open(t, Options{})
	a, _ := storetest.Step("a", "content")
	b, _ := storetest.Step("b", "content")
	again, err := Open(d.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	spool := spooled(t, d, "content")
	for _, put := range []struct {
		store *Dir
		desc  cache.Descriptor
	}{{d, a}, {d, a}, {d, b}, {again, a}} {
		if err := put.store.Put(t.Context(), put.desc, spool); err != nil {
			t.Error(err)
		}
		if !has(t, d, put.desc) {
			t.Error("it is not there")
		}
	}
}

func TestTwoProcesses(t *testing.T) {
	d := open(t, Options{})
	var cmds []*exec.Cmd
	for range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "STORE_PUTTER="+d.Path())
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	list, err := d.List(t.Context())
	if err != nil || len(list) != 30 {
		t.Errorf("%d layers, %v, want 30", len(list), err)
	}
	for _, m := range list {
		f, err := storetest.Open(t, d, m.Steps[0])
		if err != nil {
			t.Error(err)
			continue
		}
		f.Close()
	}
}

func TestWhatKilledProcessesLeftIsSwept(t *testing.T) {
	d := open(t, Options{MaxSize: 10})
	put(t, d, "a", "a")
	dead := filepath.Join(d.tmp(), "part-dead")
	if err := os.WriteFile(dead, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, name, err := safefile.CreateTemp(tmpRoot(t, d), spoolPrefix) // as Create does where there are no anonymous files
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	live, old := filepath.Join(d.tmp(), name), time.Now().Add(-48*time.Hour)
	os.Chtimes(live, old, old) // what is packed may be slow
	put(t, d, "b", strings.Repeat("b", 100))
	if _, err := os.Stat(dead); err == nil {
		t.Error("one that nobody has open is left")
	}
	if _, err := os.Stat(live); err != nil {
		t.Error("one that is in use is gone")
	}
}

// The store need not be full for that.
func TestSweptAtTheFirstPut(t *testing.T) {
	d := open(t, Options{})
	put(t, d, "a", "a")
	old := filepath.Join(d.tmp(), "blob-old")
	if err := os.WriteFile(old, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chtimes(old, time.Now().Add(-48*time.Hour), time.Now().Add(-48*time.Hour))
	later, err := Open(d.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, later, "b", "b")
	if _, err := os.Stat(old); err == nil {
		t.Error("it is left")
	}
}

// Nor need the rest of it be well.
func TestSweptWhereTheStoreIsDamaged(t *testing.T) {
	d := open(t, Options{})
	put(t, d, "a", "a")
	old := filepath.Join(d.tmp(), "part-dead")
	if err := os.WriteFile(old, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(d.Path(), keysName)
	if err := os.RemoveAll(keys); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Base(keys), keys); err != nil {
		t.Fatal(err)
	}
	later, err := Open(d.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f, err := later.Create(); err == nil {
		f.Close()
		t.Error("a link in place of keys is followed")
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("it is left")
	}
}

func TestDamagedLayerIsRemoved(t *testing.T) {
	d := open(t, Options{})
	a := put(t, d, "a", "a")
	m := storetest.Layer("base", 1, a)
	if err := d.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	idx, err := d.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.blobPath(idx.Manifests[0].Digest), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Remove(t.Context(), []cache.Manifest{m}); err != nil {
		t.Fatal(err)
	}
	if idx, err = d.readIndex(); err != nil || len(idx.Manifests) != 0 {
		t.Errorf("it is still listed: %v, %v", idx.Manifests, err)
	}
	if !has(t, d, a) {
		t.Error("its step is gone, though nobody knew that it was its only layer")
	}
}

func TestDamagedFilesAreMisses(t *testing.T) {
	d := open(t, Options{})
	a, b := put(t, d, "a", "a"), put(t, d, "b", "b")
	if err := d.Complete(t.Context(), storetest.Layer("base", 1, a)); err != nil {
		t.Fatal(err)
	}
	damage := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	damage(d.keyPath(a.Key))
	if has(t, d, a) {
		t.Error("a damaged key file is found")
	}
	put(t, d, "a", "a")
	if !has(t, d, a) {
		t.Error("the next Put did not mend it")
	}
	damage(d.blobPath(b.Digest))
	if _, err := storetest.Open(t, d, b); !errors.Is(err, cache.ErrNotCached) {
		t.Errorf("a damaged blob: %v, want ErrNotCached", err)
	}
	damage(d.indexPath())
	if list, err := d.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a damaged index: %v, %v", list, err)
	}
	if err := d.Complete(t.Context(), storetest.Layer("base", 1, a)); err != nil {
		t.Fatal(err)
	}
	if list, err := d.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("after it was mended: %v, %v", list, err)
	}
}

// A blob that has gone bad is a miss once, not for ever.
func TestCorruptBlobIsReplaced(t *testing.T) {
	d := open(t, Options{})
	a := put(t, d, "a", "content")
	if err := os.WriteFile(d.blobPath(a.Digest), []byte("CONTENT"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := storetest.Open(t, d, a); err == nil {
		t.Fatal("a corrupt blob is opened")
	}
	put(t, d, "a", "content")
	f, err := storetest.Open(t, d, a)
	if err != nil {
		t.Fatalf("after the right bytes were put: %v", err)
	}
	f.Close()
}

func TestFullDisk(t *testing.T) {
	mounted(t, `mount -t tmpfs -o size=64k tmpfs "$1"`, "TestFullDiskInside", "STORE_ON_FULL_DISK", t.TempDir())
}

func TestReadOnly(t *testing.T) {
	d := open(t, Options{})
	a := put(t, d, "a", "content")
	if err := d.Complete(t.Context(), storetest.Layer("base", 1, a)); err != nil {
		t.Fatal(err)
	}
	mounted(t, `mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"`, "TestReadOnlyInside", "STORE_READ_ONLY", d.Path())
}

// mounted runs a test of this binary under a mount over dir, which is in a
// namespace of the child's own. The test finds dir in a variable.
func mounted(t *testing.T, mount, test, variable, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: nothing can be mounted")
	}
	script := mount + ` && exec "$2" -test.run "^$3\$"`
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", script, "sh", dir, os.Args[0], test)
	cmd.Env = append(os.Environ(), variable+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "unshare") || strings.Contains(string(out), "mount:") {
			t.Skipf("nothing can be mounted: %s", out)
		}
		t.Errorf("%v\n%s", err, out)
	}
}

func TestReadOnlyInside(t *testing.T) {
	dir := os.Getenv("STORE_READ_ONLY")
	if dir == "" {
		t.Skip("run by TestReadOnly")
	}
	d, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, blob := storetest.Step("a", "content")
	f, err := storetest.Open(t, d, a)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if list, err := d.List(t.Context()); err != nil || len(list) != 1 || !has(t, d, a) {
		t.Errorf("layers %v, %v; the step is there: %t", list, err, has(t, d, a))
	}
	if err := d.Put(t.Context(), a, blob); err == nil {
		t.Error("Put has no error")
	}
	if _, err := d.Remove(t.Context(), []cache.Manifest{storetest.Layer("base", 1, a)}); err == nil {
		t.Error("Remove has no error")
	}
}

func TestFullDiskInside(t *testing.T) {
	dir := os.Getenv("STORE_ON_FULL_DISK")
	if dir == "" {
		t.Skip("run by TestFullDisk")
	}
	d, err := Open(filepath.Join(dir, "store"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	small := put(t, d, "small", "small")
	big, blob := storetest.Step("big", strings.Repeat("x", 200<<10))
	if err := d.Put(t.Context(), big, blob); err == nil {
		t.Error("no error")
	}
	if has(t, d, big) || !has(t, d, small) {
		t.Errorf("big is there: %t, small: %t", has(t, d, big), has(t, d, small))
	}
	if left, _ := os.ReadDir(d.tmp()); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

// failing is a store of which every call fails.
type failing struct{ cache.Store }

var errFailing = errors.New("out of order")

func (failing) Name() string { return "failing" }
func (failing) Find(context.Context, string, []key.Key) (map[key.Key]cache.Found, error) {
	return nil, errFailing
}
func (failing) Fetch(context.Context, cache.Descriptor, *cache.Blob) error { return errFailing }
func (failing) Put(context.Context, cache.Descriptor, *cache.Blob) error   { return errFailing }

func TestTierWithAStoreThatFails(t *testing.T) {
	far := open(t, Options{})
	near := open(t, Options{})
	desc := put(t, far, "a", "content")
	var told []string
	tier := cache.Tiered(func(store string, err error) { told = append(told, store) }, failing{}, near, far)
	found, err := tier.Find(t.Context(), "", []key.Key{desc.Key})
	if err != nil || len(found) != 1 || found[desc.Key].Store != "dir" {
		t.Fatalf("Find: %v, %v", found, err)
	}
	if got := storetest.Read(t, tier, desc); got != "content" {
		t.Errorf("read %q", got)
	}
	if !has(t, near, desc) {
		t.Error("what the far store had is not kept in the near one")
	}
	if len(told) == 0 || told[0] != "failing" {
		t.Errorf("told of %v", told)
	}
	other, blob := storetest.Step("b", "b")
	told = nil
	if err := tier.Put(t.Context(), other, blob); err != nil || !slices.Equal(told, []string{"failing"}) || !has(t, near, other) || !has(t, far, other) {
		t.Errorf("Put: %v, told of %v; the stores that work have it: %t, %t", err, told, has(t, near, other), has(t, far, other))
	}
	alone := cache.Tiered(func(string, error) {}, failing{})
	if err := alone.Put(t.Context(), other, blob); !errors.Is(err, errFailing) {
		t.Errorf("Put into a failing store alone: %v", err)
	}
	missing, _ := storetest.Step("c", "c")
	if err := tier.Fetch(t.Context(), missing, &cache.Blob{}); !errors.Is(err, cache.ErrNotCached) {
		t.Errorf("Open of what is nowhere: %v", err)
	}
	// Corrupt in the near store, whole in the far one.
	if err := os.WriteFile(near.blobPath(desc.Digest), []byte("CONTENT"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := storetest.Read(t, tier, desc); got != "content" {
		t.Errorf("read %q", got)
	}
}

func BenchmarkFind10000Over100(b *testing.B) {
	d := open(b, Options{})
	layers := make([][]key.Key, 100)
	for l := range layers {
		for i := range 100 {
			desc, blob := storetest.Step(fmt.Sprint(l, "/", i), "content")
			if err := d.Put(context.Background(), desc, blob); err != nil {
				b.Fatal(err)
			}
			blob.Close()
			layers[l] = append(layers[l], desc.Key)
		}
	}
	for b.Loop() { // side by side, as the solver asks
		var eg errgroup.Group
		for _, keys := range layers {
			eg.Go(func() error {
				found, err := d.Find(context.Background(), "", keys)
				if err == nil && len(found) != len(keys) {
					err = fmt.Errorf("%d found, want %d", len(found), len(keys))
				}
				return err
			})
		}
		if err := eg.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	d := open(b, Options{})
	content := bytes.Repeat([]byte("x"), 1<<20)
	b.SetBytes(int64(len(content)))
	n := 0
	for b.Loop() {
		n++
		copy(content, fmt.Sprint(n))
		desc, blob := storetest.Step(fmt.Sprint(n), string(content))
		if err := d.Put(context.Background(), desc, blob); err != nil {
			b.Fatal(err)
		}
		blob.Close()
	}
}
