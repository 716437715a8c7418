package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend/metadata"
)

var amd64 = specs.Platform{OS: "linux", Architecture: "amd64"}

// step packs a snapshot of a file into the store.
func step(t *testing.T, s cache.Store, name string) image.Step {
	t.Helper()
	var b bytes.Buffer
	entries := func(yield func(*snapshot.Entry, error) bool) {
		yield(&snapshot.Entry{Path: name, Kind: snapshot.Dir, Mode: 0o755, ModTime: time.Unix(1, 0)}, nil)
	}
	packed, err := snapshot.Pack(t.Context(), &b, entries, snapshot.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := cache.Descriptor{
		Key:    key.Sum("test", func(w key.Writer) { w.Field("name", name) }),
		Digest: packed.Digest, Size: packed.Size, DiffID: packed.DiffID, Text: "RUN mkdir " + name,
		Created: time.Unix(1_700_000_000, 0).UTC(),
	}
	if err := s.Put(t.Context(), d, storetest.Blob(b.String())); err != nil {
		t.Fatal(err)
	}
	return image.Step{Descriptor: d, Text: d.Text}
}

func store(t *testing.T) (*dir.Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	s, err := dir.Open(path, dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, path
}

// read returns the manifest and the config of the only image of a layout.
func read(t *testing.T, path string) (m specs.Manifest, c specs.Image) {
	t.Helper()
	document := func(name string, v any) {
		data, err := os.ReadFile(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, v); err != nil {
			t.Fatal(err)
		}
	}
	blob := func(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
	var index specs.Index
	document("index.json", &index)
	document(blob(index.Manifests[0].Digest), &m)
	document(blob(m.Config.Digest), &c)
	return m, c
}

func TestOverABase(t *testing.T) {
	s, _ := store(t)
	tmp := t.TempDir()
	below := image.Image{Name: "below", Platform: amd64, Steps: []image.Step{step(t, s, "a"), {Text: "ENV X"}}, Config: &image.Config{
		ImageConfig: specs.ImageConfig{Env: []string{"PATH=/bin", "X=1"}, User: "u", Labels: map[string]string{"a": "1", "b": "1"}},
		Shell:       []string{"/bin/bash", "-c"}, OnBuild: []string{"RUN true"}, Author: "me", Healthcheck: &metadata.Health{Test: []string{"NONE"}},
	}}
	base := filepath.Join(tmp, "base")
	if _, err := image.Write(t.Context(), base, s, below, image.Options{}); err != nil {
		t.Fatal(err)
	}
	config, err := image.BaseConfig(base+":below", amd64)
	if diff := cmp.Diff(*below.Config, config); diff != "" || err != nil {
		t.Errorf("config of the base, error %v (-want +got):\n%s", err, diff)
	}
	config = config.Clone()
	config.SetVar("X", "2")
	config.SetVar("Y", "3")
	over := image.Image{Name: "over", Platform: amd64, Steps: []image.Step{step(t, s, "b")}, Config: &config}
	dest := filepath.Join(tmp, "over")
	w, err := image.Write(t.Context(), dest, s, over, image.Options{Base: base + ":below"})
	if err != nil || w.Layers != 2 {
		t.Fatalf("%+v, %v", w, err)
	}
	m, c := read(t, dest)
	want := specs.ImageConfig{
		Env: []string{"PATH=/bin", "X=2", "Y=3"}, User: "u", Labels: map[string]string{"a": "1", "b": "1"},
	}
	if diff := cmp.Diff(want, c.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if len(c.History) != 3 || !c.History[1].EmptyLayer || len(c.RootFS.DiffIDs) != 2 || len(m.Layers) != 2 || m.Layers[0].Digest != below.Steps[0].Digest {
		t.Errorf("history %v\ndiff ids %v\nlayers %v", c.History, c.RootFS.DiffIDs, m.Layers)
	}

	arm := over
	arm.Platform.Architecture = "arm64"
	if _, err := image.Write(t.Context(), filepath.Join(tmp, "arm"), s, arm, image.Options{Base: base}); err == nil || !strings.Contains(err.Error(), "it is for linux/amd64, and the layers for linux/arm64") {
		t.Errorf("another architecture: %v", err)
	}
}

// Docker's manifests, and an index of several platforms, are a base too.
func TestBaseOfDocker(t *testing.T) {
	s, _ := store(t)
	tmp := t.TempDir()
	base := filepath.Join(tmp, "base")
	if _, err := image.Write(t.Context(), base, s, image.Image{Platform: amd64, Steps: []image.Step{step(t, s, "a")}}, image.Options{Gzip: true}); err != nil {
		t.Fatal(err)
	}
	m, _ := read(t, base)
	m.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
	m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	add := func(mediaType string, v any) specs.Descriptor {
		data, desc, err := cache.JSON(mediaType, v)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, "blobs/sha256", desc.Digest.Encoded()), data, 0o644); err != nil {
			t.Fatal(err)
		}
		return desc
	}
	desc := add(m.MediaType, m)
	desc.Platform = &amd64
	index := add(specs.MediaTypeImageIndex, specs.Index{Manifests: []specs.Descriptor{{Platform: &specs.Platform{OS: "linux", Architecture: "arm64"}}, desc}})
	data, _, err := cache.JSON("", specs.Index{Manifests: []specs.Descriptor{index}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "index.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(tmp, "over")
	if _, err := image.Write(t.Context(), dest, s, image.Image{Platform: amd64, Steps: []image.Step{step(t, s, "b")}}, image.Options{Base: base}); err != nil {
		t.Fatal(err)
	}
	got, _ := read(t, dest)
	if got.Layers[0].MediaType != specs.MediaTypeImageLayerGzip || got.Layers[1].MediaType != snapshot.MediaType {
		t.Errorf("layers %v", got.Layers)
	}
}

// What fails leaves nothing at the destination, nor beside it, and takes
// nothing away that was there.
func TestFailuresLeaveNothing(t *testing.T) {
	s, path := store(t)
	good := image.Image{Platform: amd64, Steps: []image.Step{step(t, s, "a"), step(t, s, "b")}}
	damaged := filepath.Join(path, "blobs/sha256", good.Steps[1].Digest.Encoded())
	base := filepath.Join(t.TempDir(), "base")
	if _, err := image.Write(t.Context(), base, s, good, image.Options{}); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		do   func(t *testing.T)
		img  image.Image
		opt  image.Options
		is   error
	}{
		{name: "cancelled", ctx: cancelled, img: good, is: context.Canceled},
		{name: "a step that is not there", img: image.Image{Platform: amd64, Steps: []image.Step{good.Steps[0], {Descriptor: cache.Descriptor{Digest: digest.FromString("x"), DiffID: digest.FromString("x"), Size: 1}}}}, is: cache.ErrNotCached},
		{name: "a base that is damaged", img: good, opt: image.Options{Base: base}, is: cache.ErrNotCached, do: func(t *testing.T) {
			write(t, filepath.Join(base, "blobs/sha256", good.Steps[0].Digest.Encoded()), "short")
		}},
		{name: "a step that is damaged", img: good, is: cache.ErrNotCached, do: func(t *testing.T) {
			write(t, damaged, strings.Repeat("x", int(good.Steps[1].Size)))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.do != nil {
				tt.do(t)
			}
			if tt.ctx == nil {
				tt.ctx = t.Context()
			}
			tmp := t.TempDir()
			write(t, filepath.Join(tmp, "there.tar"), "before")
			for _, dest := range []string{"new", "new.tar", "there.tar"} {
				_, err := image.Write(tt.ctx, filepath.Join(tmp, dest), s, tt.img, tt.opt)
				if !errors.Is(err, tt.is) {
					t.Errorf("%s: error = %v, want %v", dest, err, tt.is)
				}
			}
			entries, err := os.ReadDir(tmp)
			if err != nil || len(entries) != 1 {
				t.Errorf("left: %v, %v", entries, err)
			}
			if data, err := os.ReadFile(filepath.Join(tmp, "there.tar")); string(data) != "before" {
				t.Errorf("what was there is %q, %v", data, err)
			}
		})
	}
}

func TestDestinations(t *testing.T) {
	s, _ := store(t)
	img := image.Image{Platform: amd64, Steps: []image.Step{step(t, s, "a")}}
	tmp := t.TempDir()
	for _, dir := range []string{"empty", "full", "folder.tar"} {
		if err := os.Mkdir(filepath.Join(tmp, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(tmp, "full/file"), "mine")
	write(t, filepath.Join(tmp, "file"), "mine")
	for _, dest := range []string{"full", "file", "folder.tar"} {
		if _, err := image.Write(t.Context(), filepath.Join(tmp, dest), s, img, image.Options{}); !errors.Is(err, image.ErrThere) {
			t.Errorf("%s: error = %v, want ErrThere", dest, err)
		}
	}
	for _, dest := range []string{"empty", "new", "new.tar"} {
		if _, err := image.Write(t.Context(), filepath.Join(tmp, dest), s, img, image.Options{}); err != nil {
			t.Errorf("%s: %v", dest, err)
		}
	}
	entries, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"empty", "file", "folder.tar", "full", "new", "new.tar"}; !slices.Equal(names, want) {
		t.Errorf("there are %v, want %v", names, want)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
