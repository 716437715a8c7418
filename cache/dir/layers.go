package dir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	specsgo "github.com/opencontainers/image-spec/specs-go"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
)

func (d *Dir) indexPath() string { return filepath.Join(d.path, specs.ImageIndexFile) }

func newIndex() *specs.Index {
	return &specs.Index{Versioned: specsgo.Versioned{SchemaVersion: 2}, MediaType: specs.MediaTypeImageIndex, Manifests: []specs.Descriptor{}}
}

// readIndex reads index.json; one that is not there, or is damaged, lists nothing.
func (d *Dir) readIndex() (*specs.Index, error) {
	data, err := os.ReadFile(d.indexPath())
	if errors.Is(err, fs.ErrNotExist) {
		return newIndex(), nil
	}
	if err != nil {
		return nil, err
	}
	idx := newIndex()
	if err := json.Unmarshal(data, idx); err != nil {
		slog.Warn("the store's index is damaged; the layers in it are not listed any more", "path", d.indexPath(), "err", err)
		return newIndex(), nil
	}
	idx.Manifests = slices.DeleteFunc(idx.Manifests, func(desc specs.Descriptor) bool { return !valid(desc.Digest) })
	return idx, nil
}

func (d *Dir) writeIndex(idx *specs.Index) error {
	data, err := json.Marshal(idx)
	if err != nil {
		return err
	}
	return d.write(d.indexPath(), data)
}

// Complete writes the layer as an image: its steps are the image's layers.
func (d *Dir) Complete(ctx context.Context, m cache.Manifest) error {
	if err := d.complete(ctx, m); err != nil {
		return fmt.Errorf("complete %s in %s: %w", m.Tag(), d.path, err)
	}
	return nil
}

func (d *Dir) complete(ctx context.Context, m cache.Manifest) error {
	if err := d.init(); err != nil {
		return err
	}
	unlock, err := d.lock(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	for _, s := range m.Steps {
		if !valid(s.Digest) {
			return fmt.Errorf("step %s: digest %q", s.Key.Short(), s.Digest)
		}
		if _, err := os.Stat(d.blobPath(s.Digest)); err != nil {
			return fmt.Errorf("step %s: %w", s.Key.Short(), cache.ErrNotCached)
		}
	}
	desc, err := d.writeImage(m)
	if err != nil {
		return err
	}
	idx, err := d.readIndex()
	if err != nil {
		return err
	}
	idx.Manifests = slices.DeleteFunc(idx.Manifests, func(x specs.Descriptor) bool {
		return x.Annotations[specs.AnnotationRefName] == m.Tag()
	})
	idx.Manifests = append(idx.Manifests, desc)
	return d.writeIndex(idx)
}

// writeImage writes config and manifest, and returns the index's entry.
func (d *Dir) writeImage(m cache.Manifest) (specs.Descriptor, error) {
	image, config, err := m.Image()
	if err != nil {
		return specs.Descriptor{}, err
	}
	if _, err = d.writeJSON(specs.MediaTypeImageConfig, config); err != nil {
		return specs.Descriptor{}, err
	}
	desc, err := d.writeJSON(specs.MediaTypeImageManifest, image)
	if err != nil {
		return specs.Descriptor{}, err
	}
	desc.Annotations = map[string]string{specs.AnnotationRefName: m.Tag()}
	desc.Platform = &config.Platform
	return desc, nil
}

func (d *Dir) writeJSON(mediaType string, v any) (specs.Descriptor, error) {
	data, desc, err := cache.JSON(mediaType, v)
	if err != nil {
		return desc, err
	}
	return desc, d.write(d.blobPath(desc.Digest), data)
}

// List returns the complete layers, newest first. One that can't be read is
// left out, with a warning.
func (d *Dir) List(ctx context.Context) ([]cache.Manifest, error) {
	idx, err := d.readIndex()
	if err != nil {
		return nil, err
	}
	var list []cache.Manifest
	for _, desc := range idx.Manifests {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, err := d.manifest(desc)
		if err != nil {
			slog.Warn("a layer in the store can't be read", "tag", desc.Annotations[specs.AnnotationRefName], "err", err)
			continue
		}
		list = append(list, m)
	}
	slices.SortStableFunc(list, cache.NewestFirst)
	return list, nil
}

func (d *Dir) manifest(desc specs.Descriptor) (m cache.Manifest, err error) {
	image, err := d.image(desc)
	if err != nil {
		return m, err
	}
	return cache.FromImage(image)
}

// unreadable reports whether an error is of reading, not of what was read: the
// file is there, and may be whole. Nothing may be removed for it.
func unreadable(err error) bool {
	var perr *fs.PathError
	return errors.As(err, &perr) && !errors.Is(err, fs.ErrNotExist)
}

func (d *Dir) image(desc specs.Descriptor) (image specs.Manifest, err error) {
	data, err := os.ReadFile(d.blobPath(desc.Digest))
	if err != nil {
		return image, err
	}
	if got := digest.FromBytes(data); got != desc.Digest {
		return image, &cache.CorruptError{Want: desc.Digest, Got: got, WantSize: desc.Size, GotSize: int64(len(data))}
	}
	if err := json.Unmarshal(data, &image); err != nil {
		return image, err
	}
	// Another tool's entry may be an index, which has neither.
	if !valid(image.Config.Digest) || slices.ContainsFunc(image.Layers, func(l specs.Descriptor) bool { return !valid(l.Digest) }) {
		return image, fmt.Errorf("%s: not the manifest of an image", desc.Digest)
	}
	return image, nil
}

// Remove forgets layers, with the steps that no other layer has.
func (d *Dir) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	if _, err := os.Stat(d.path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	unlock, err := d.lock(ctx, true)
	if err != nil {
		return 0, err
	}
	defer unlock()
	idx, err := d.readIndex()
	if err != nil {
		return 0, err
	}
	gone := make(map[string]bool)
	for _, m := range ms {
		gone[m.Tag()] = true
	}
	var steps []cache.Descriptor
	kept := make(map[string]bool)
	stay := newIndex()
	for _, desc := range idx.Manifests {
		m, err := d.manifest(desc)
		if gone[desc.Annotations[specs.AnnotationRefName]] {
			// The steps of one that can't be read stay, as those of a build
			// that was interrupted do, until the bound takes them.
			steps = append(steps, m.Steps...)
			continue
		}
		if unreadable(err) {
			return 0, err // its steps are not known, and must not go with another layer's
		}
		stay.Manifests = append(stay.Manifests, desc)
		for _, s := range m.Steps {
			kept[s.Key.String()] = true
		}
	}
	if len(stay.Manifests) == len(idx.Manifests) {
		return 0, nil
	}
	// The index first: after a kill here nothing names what is gone.
	if err := d.writeIndex(stay); err != nil {
		return 0, err
	}
	for _, s := range steps {
		if !kept[s.Key.String()] {
			if err := os.Remove(d.keyPath(s.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return 0, err
			}
		}
	}
	return d.sweep()
}
