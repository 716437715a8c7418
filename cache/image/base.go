package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/safefile"
)

// maxDocument bounds what is read of a manifest, an index or a config.
const maxDocument = 16 << 20

// A base is an image in a layout that another one builds on.
type base struct {
	dir      string
	digest   digest.Digest // of its manifest
	manifest specs.Manifest
	config   document
}

// mediaTypes are Docker's words for what OCI has others for; the bytes are the
// same.
var mediaTypes = map[string]string{
	"application/vnd.docker.distribution.manifest.v2+json":      specs.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.list.v2+json": specs.MediaTypeImageIndex,
	"application/vnd.docker.image.rootfs.diff.tar.gzip":         specs.MediaTypeImageLayerGzip,
	"application/vnd.docker.image.rootfs.diff.tar":              specs.MediaTypeImageLayer,
}

func mediaType(s string) string {
	if t, ok := mediaTypes[s]; ok {
		return t
	}
	return s
}

func baseError(name string, err error) error { return fmt.Errorf("base %s: %w", name, err) }

// openBase reads the image of a layout: DIR, or DIR:TAG where it has several. The zero
// Platform is any, of a layout that has one image for all.
func openBase(name string, want specs.Platform) (*base, error) {
	dir, tag := name, ""
	if _, err := os.Stat(dir); err != nil {
		if i := strings.LastIndexByte(name, ':'); i > 0 {
			dir, tag = name[:i], name[i+1:]
		}
	}
	b := &base{dir: dir}
	data, err := safefile.Read(filepath.Join(dir, specs.ImageIndexFile), maxDocument)
	if err != nil {
		return nil, fmt.Errorf("no image layout, as skopeo copy ... oci:DIR writes one: %w", err)
	}
	var index specs.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", specs.ImageIndexFile, err)
	}
	desc, err := choose(index.Manifests, tag)
	if err != nil {
		return nil, err
	}
	if mediaType(desc.MediaType) == specs.MediaTypeImageIndex {
		var nested specs.Index
		if err := b.read(desc, &nested); err != nil {
			return nil, err
		}
		i := slices.IndexFunc(nested.Manifests, func(d specs.Descriptor) bool {
			return d.Platform != nil && d.Platform.OS == want.OS && d.Platform.Architecture == want.Architecture
		})
		if i < 0 {
			return nil, fmt.Errorf("it has nothing for %s/%s", want.OS, want.Architecture)
		}
		desc = nested.Manifests[i]
	}
	if mediaType(desc.MediaType) != specs.MediaTypeImageManifest {
		return nil, fmt.Errorf("%s is no image: %s", desc.Digest, desc.MediaType)
	}
	b.digest = desc.Digest
	if err := b.read(desc, &b.manifest); err != nil {
		return nil, err
	}
	if err := b.read(b.manifest.Config, &b.config); err != nil {
		return nil, err
	}
	if want.OS != "" && (b.config.OS != want.OS || b.config.Architecture != want.Architecture) {
		return nil, fmt.Errorf("it is for %s/%s, and the layers for %s/%s", b.config.OS, b.config.Architecture, want.OS, want.Architecture)
	}
	if len(b.config.RootFS.DiffIDs) != len(b.manifest.Layers) {
		return nil, fmt.Errorf("%d layers, and %d diff ids", len(b.manifest.Layers), len(b.config.RootFS.DiffIDs))
	}
	return b, nil
}

// choose returns the manifest of a tag, and the only one where none is named.
func choose(all []specs.Descriptor, tag string) (specs.Descriptor, error) {
	var tags []string
	for _, d := range all {
		t := d.Annotations[specs.AnnotationRefName]
		if tag != "" && t == tag || tag == "" && len(all) == 1 {
			return d, nil
		}
		tags = append(tags, t)
	}
	switch {
	case len(all) == 0:
		return specs.Descriptor{}, errors.New("the layout has no image")
	case tag == "":
		return specs.Descriptor{}, fmt.Errorf("the layout has several images, say which by DIR:TAG: %s", strings.Join(tags, ", "))
	}
	return specs.Descriptor{}, fmt.Errorf("the layout has no image %q; it has %s", tag, strings.Join(tags, ", "))
}

func (b *base) path(desc specs.Descriptor) (string, error) {
	if err := desc.Digest.Validate(); err != nil || desc.Digest.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("digest %q: want one by sha256", desc.Digest)
	}
	return filepath.Join(b.dir, "blobs", "sha256", desc.Digest.Encoded()), nil
}

// read reads a document, checked by its digest.
func (b *base) read(desc specs.Descriptor, v any) error {
	path, err := b.path(desc)
	if err != nil {
		return err
	}
	data, err := safefile.Read(path, maxDocument)
	if err != nil {
		return err
	}
	if got := digest.FromBytes(data); got != desc.Digest {
		return &cache.CorruptError{Want: desc.Digest, Got: got, WantSize: desc.Size, GotSize: int64(len(data))}
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, err)
	}
	return nil
}

// copyLayers copies the layers of a base into the layout.
func (l *layout) copyLayers(ctx context.Context, b *base) ([]specs.Descriptor, error) {
	layers := []specs.Descriptor{}
	for _, d := range b.manifest.Layers {
		path, err := b.path(d)
		if err != nil {
			return nil, err
		}
		f, err := safefile.Open(path)
		if err != nil {
			return nil, err
		}
		err = l.addBlob(ctx, d, f)
		f.Close()
		if err != nil {
			return nil, err
		}
		d.MediaType = mediaType(d.MediaType)
		layers = append(layers, d)
	}
	return layers, nil
}
