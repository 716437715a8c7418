// Package image writes layers as an OCI image, for tools that run and move
// images: skopeo, podman, crane. It is the images' side of a snapshot: the
// blobs are those of the stores, and the config says what a container of the
// image begins with.
//
// The same layers give the same bytes: nothing is taken from the clock, and
// all that is listed has an order of its own.
//
// The formats are those of the OCI image specification 1.1: image-layout.md,
// manifest.md, config.md. An archive is a layout in a tar, as skopeo's
// oci-archive reads it.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specsgo "github.com/opencontainers/image-spec/specs-go"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
)

// An Image is what is written.
type Image struct {
	Name     string         // its tag in the layout
	Platform specs.Platform // a base must have the same
	Config   *Config        // nil is that of the base
	Steps    []Step         // in order
}

// A Step is one line of the image's history.
type Step struct {
	cache.Descriptor        // of its snapshot; a zero Digest says that it changed the config alone
	Text             string // the instruction, for display
	AllForRoot       bool   // nothing of its snapshot is scratch: a SNAPSHOT's
}

// Options are how to write. The zero Options is the default.
type Options struct {
	Base string // an image layout, with :TAG where it has several; "" for none
	Gzip bool   // for tools that can't read zstd
}

// Written is what was written.
type Written struct {
	Digest digest.Digest `json:"digest"` // of the image's manifest
	Layers int           `json:"layers"` // those of the base included
	Size   int64         `json:"size"`   // bytes of all blobs
}

// MaxLayers is how many layers Docker takes: so many fit into the options of an overlay mount.
const MaxLayers = 127

// ErrThere says that there is something at the destination that is not
// replaced.
var ErrThere = errors.New("is there already")

// Write writes an image, with the snapshots that store has, to dest: a file
// where that ends in .tar, which replaces one that is there, else a directory,
// which must be empty or not there. All is written beside it first, and given
// its name when it is whole: what fails leaves nothing.
func Write(ctx context.Context, dest string, store cache.Store, img Image, opt Options) (w Written, err error) {
	return write(ctx, dest, func(l *layout) (Written, error) { return l.writeImage(ctx, store, img, opt) })
}

func write(ctx context.Context, dest string, fill func(*layout) (Written, error)) (w Written, err error) {
	dest, err = filepath.Abs(dest)
	if err != nil {
		return w, err
	}
	archive := strings.HasSuffix(dest, ".tar")
	if err := free(dest, archive); err != nil {
		return w, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".part-")
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l := &layout{dir: dir}
	if err := l.init(); err != nil {
		return w, err
	}
	if w, err = fill(l); err != nil {
		return w, err
	}
	if archive {
		return w, l.archive(ctx, dest)
	}
	return w, l.install(dest)
}

// free reports whether something may be written to dest.
func free(dest string, archive bool) error {
	info, err := os.Stat(dest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if archive {
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s %w, and is no file", dest, ErrThere)
		}
		return nil
	}
	if !info.IsDir() {
		return fmt.Errorf("%s %w, and is not a directory; an archive's name ends in .tar", dest, ErrThere)
	}
	entries, err := os.ReadDir(dest)
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("%s %w, with something in it: remove it, or name another directory", dest, ErrThere)
	}
	return err
}

// epoch is the time of an image that has no step.
var epoch = time.Unix(0, 0).UTC()

func (l *layout) writeImage(ctx context.Context, store cache.Store, img Image, opt Options) (w Written, err error) {
	config := document{Image: specs.Image{Created: &epoch, Platform: img.Platform, RootFS: specs.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}}
	manifest := specs.Manifest{
		Versioned: specsgo.Versioned{SchemaVersion: 2},
		MediaType: specs.MediaTypeImageManifest,
		Layers:    []specs.Descriptor{},
	}
	if opt.Base != "" {
		b, err := openBase(opt.Base, img.Platform)
		if err != nil {
			return w, baseError(opt.Base, err)
		}
		if manifest.Layers, err = l.copyLayers(ctx, b); err != nil {
			return w, baseError(opt.Base, err)
		}
		if config = b.config; config.Created == nil || config.Created.Before(epoch) {
			config.Created = &epoch
		}
		manifest.Annotations = map[string]string{specs.AnnotationBaseImageDigest: b.digest.String()}
	}
	if img.Config != nil {
		config.Config, config.Author = *img.Config, img.Config.Author
	}
	last := *config.Created
	for _, s := range img.Steps {
		// A step without a snapshot was made when the one before it was.
		created := s.Created.UTC()
		if s.Created.IsZero() {
			created = last
		}
		last = created
		if created.After(*config.Created) {
			config.Created = &created
		}
		h := specs.History{Created: &created, CreatedBy: s.Text, Comment: "clayer", EmptyLayer: s.Digest == ""}
		config.History = append(config.History, h)
		if h.EmptyLayer {
			continue
		}
		layer, diffID, err := l.addStep(ctx, store, s, opt.Gzip)
		if err != nil {
			return w, fmt.Errorf("%s: %w", s.Text, err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		manifest.Layers = append(manifest.Layers, layer)
	}
	return l.index(img.Name, config, manifest)
}

// index writes a manifest with its config, and the index that has it by a name.
func (l *layout) index(name string, config document, manifest specs.Manifest) (w Written, err error) {
	if manifest.Config, err = l.addJSON(specs.MediaTypeImageConfig, config); err != nil {
		return w, err
	}
	desc, err := l.addJSON(specs.MediaTypeImageManifest, manifest)
	if err != nil {
		return w, err
	}
	w = Written{Digest: desc.Digest, Layers: len(manifest.Layers), Size: l.size}
	desc.Platform = &config.Platform
	if name != "" {
		desc.Annotations = map[string]string{specs.AnnotationRefName: name}
	}
	return w, l.finish(specs.Index{
		Versioned: specsgo.Versioned{SchemaVersion: 2},
		MediaType: specs.MediaTypeImageIndex,
		Manifests: []specs.Descriptor{desc},
	})
}

// addStep copies a snapshot into the layout, without scratch.
func (l *layout) addStep(ctx context.Context, store cache.Store, s Step, gzip bool) (layer specs.Descriptor, diffID digest.Digest, err error) {
	d := s.Descriptor
	if err := d.DiffID.Validate(); err != nil {
		return layer, "", fmt.Errorf("step %s: diff id: %w", d.Key.Short(), err)
	}
	var b cache.Blob
	defer b.Close()
	if err := cache.Fetch(ctx, store, d, &b); err != nil {
		return layer, "", fmt.Errorf("step %s: %w", d.Key.Short(), err)
	}
	var blob io.ReaderAt = &b
	scratch := false
	if !s.AllForRoot {
		scratch, err = hasScratch(blob, d.Size)
	}
	if err == nil && scratch {
		var f *os.File
		if f, err = l.withoutScratch(ctx, blob, &d); err == nil {
			defer f.Close()
			blob = f
		}
	}
	if err != nil {
		return layer, "", fmt.Errorf("step %s: %w", d.Key.Short(), err)
	}
	r := io.NewSectionReader(blob, 0, d.Size)
	if gzip {
		layer, err = l.addGzip(ctx, r, d.DiffID)
		return layer, d.DiffID, err
	}
	layer = specs.Descriptor{MediaType: snapshot.MediaType, Digest: d.Digest, Size: d.Size}
	return layer, d.DiffID, l.addBlob(ctx, layer, r)
}
