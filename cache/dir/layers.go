package dir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/safefile"
)

// Complete writes the layer as an image: its steps are the image's layers.
func (d *Dir) Complete(ctx context.Context, m cache.Manifest) error {
	if err := d.complete(ctx, m); err != nil {
		return fmt.Errorf("complete %s in %s: %w", m.Tag(), d.path, err)
	}
	return nil
}

func (d *Dir) complete(ctx context.Context, m cache.Manifest) error {
	root, err := d.init(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	unlock, err := d.lock(ctx, root, true)
	if err != nil {
		return err
	}
	defer unlock()
	idx, err := changeIndex(root)
	if err != nil {
		return err
	}
	for _, e := range idx.Manifests {
		if e.tag() == m.Tag() && isWhole(root, e.Descriptor, &m) {
			return nil
		}
	}
	for _, s := range m.Steps {
		if !valid(s.Digest) {
			return fmt.Errorf("step %s: digest %q", s.Key.Short(), s.Digest)
		}
		if !hasBlob(root, s) {
			return fmt.Errorf("step %s: %w", s.Key.Short(), cache.ErrNotCached)
		}
	}
	desc, err := d.writeImage(root, m)
	if err != nil {
		return err
	}
	idx.Manifests = slices.DeleteFunc(idx.Manifests, func(e entry) bool { return e.tag() == m.Tag() })
	idx.Manifests = append(idx.Manifests, entry{Descriptor: desc})
	return d.replaceIndex(root, idx)
}

// isWhole reports whether an entry of the index is a layer with all its blobs that stays
// where m is to be listed.
func isWhole(root *os.Root, desc specs.Descriptor, m *cache.Manifest) bool {
	listed, err := readManifest(root, desc)
	return err == nil && m.Covers(listed) && !slices.ContainsFunc(listed.Steps, func(s cache.Descriptor) bool { return !hasBlob(root, s) })
}

// writeImage writes config and manifest, and returns the index's entry.
func (d *Dir) writeImage(root *os.Root, m cache.Manifest) (specs.Descriptor, error) {
	image, config, err := m.Image()
	if err != nil {
		return specs.Descriptor{}, err
	}
	if _, err = d.writeJSON(root, specs.MediaTypeImageConfig, config); err != nil {
		return specs.Descriptor{}, err
	}
	desc, err := d.writeJSON(root, specs.MediaTypeImageManifest, image)
	if err != nil {
		return specs.Descriptor{}, err
	}
	desc.Annotations = map[string]string{specs.AnnotationRefName: m.Tag()}
	desc.Platform = &config.Platform
	return desc, nil
}

func (d *Dir) writeJSON(root *os.Root, mediaType string, v any) (specs.Descriptor, error) {
	data, desc, err := cache.JSON(mediaType, v)
	if err != nil {
		return desc, err
	}
	if len(data) > maxManifest {
		return desc, fmt.Errorf("%s of %d bytes: %w", mediaType, len(data), safefile.ErrTooLarge)
	}
	if there, err := readDocument(root, desc.Digest); err == nil && digest.FromBytes(there) == desc.Digest {
		return desc, nil
	}
	if err := record(root, desc.Digest); err != nil {
		return desc, err
	}
	return desc, d.write(root, blobName(desc.Digest), data)
}

// List returns the complete layers, newest first. Those that can't be read are
// left out, with a warning.
func (d *Dir) List(ctx context.Context) ([]cache.Manifest, error) {
	root, err := d.root()
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	idx, err := readIndex(root)
	if damaged(err) {
		slog.Warn("the store's index is damaged; the layers in it are not listed", "path", d.path, "err", err)
	} else if err != nil {
		return nil, err
	}
	var list []cache.Manifest
	var failed []error
	for _, e := range idx.Manifests {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !e.mayBeLayer() {
			continue // another tool's image
		}
		m, err := readManifest(root, e.Descriptor)
		if err == nil && m.Tag() != e.tag() {
			err = fmt.Errorf("it is the layer %s", m.Tag())
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", e.tag(), err))
			continue
		}
		list = append(list, m)
	}
	if len(failed) > 0 {
		slog.Warn("layers in the store can't be read", "path", d.path, "layers", len(failed), "first", failed[0])
	}
	order.Stable(list, cache.NewestFirst)
	return list, nil
}

// readManifest reads a layer.
func readManifest(root *os.Root, desc specs.Descriptor) (m cache.Manifest, err error) {
	image, err := readImage(root, desc)
	if err != nil {
		return m, err
	}
	return cache.FromImage(image)
}

// unreadable reports whether an error is of reading, not of what was read: the
// file is there, and may be whole. Nothing may be removed for it. A link, a FIFO or
// the like is no file.
func unreadable(err error) bool {
	var perr *fs.PathError
	return errors.As(err, &perr) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, safefile.ErrTooLarge) && !errors.Is(err, safefile.ErrNotRegular)
}

func readImage(root *os.Root, desc specs.Descriptor) (image specs.Manifest, err error) {
	data, err := readDocument(root, desc.Digest)
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

// readDocument reads a manifest, an index or a config.
func readDocument(root *os.Root, dg digest.Digest) ([]byte, error) {
	return safefile.ReadFile(root, blobName(dg), maxManifest)
}

// Remove removes layers, with the steps that no other layer has.
func (d *Dir) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	root, err := d.root()
	if missing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer root.Close()
	unlock, err := d.lock(ctx, root, true)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if !exists(root, writtenName) {
		if err := d.recordAll(root); err != nil {
			return 0, err
		}
	}
	c, err := d.count(root)
	if err != nil {
		return 0, err
	}
	gone := make(map[string]bool)
	for _, m := range ms {
		gone[m.Tag()] = true
	}
	// The steps of one that can't be read stay, as those of a build that was
	// interrupted do, until the bound takes them.
	var steps []cache.Descriptor
	needed := make(map[string]bool)
	removed, err := c.drop(func(tag string, l *layer) bool {
		if gone[tag] {
			steps = append(steps, l.manifest.Steps...)
			return true
		}
		for _, s := range l.manifest.Steps {
			needed[s.Key.String()] = true
		}
		return false
	})
	if err != nil || !removed {
		return 0, err
	}
	// The index went first: after a kill here nothing names what is gone.
	for _, s := range steps {
		if !needed[s.Key.String()] {
			if err := c.forgetStep(s.Key); err != nil {
				return 0, err
			}
		}
	}
	if err := c.forgetSeconds(); err != nil {
		return 0, err
	}
	return c.sweep()
}
