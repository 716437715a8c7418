package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	specsgo "github.com/opencontainers/image-spec/specs-go"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache/snapshot"
)

// manifestAnnotation carries our Manifest in the image's.
const manifestAnnotation = "dev.clayer.manifest"

// Image returns the layer as an OCI image whose layers are its steps: what
// stores that other tools read hold. The image's config is to be stored with
// its JSON, as JSON returns it.
func (m *Manifest) Image() (specs.Manifest, specs.Image, error) {
	ours, err := json.Marshal(m)
	if err != nil {
		return specs.Manifest{}, specs.Image{}, err
	}
	config := specs.Image{
		Created:  &m.Created,
		Platform: OCIPlatform(m.Platform),
		RootFS:   specs.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	image := specs.Manifest{
		Versioned:   specsgo.Versioned{SchemaVersion: 2},
		MediaType:   specs.MediaTypeImageManifest,
		Layers:      []specs.Descriptor{},
		Annotations: map[string]string{manifestAnnotation: string(ours)},
	}
	for _, s := range m.Steps {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, s.DiffID)
		config.History = append(config.History, specs.History{Created: &s.Created, CreatedBy: s.Text})
		image.Layers = append(image.Layers, specs.Descriptor{MediaType: snapshot.MediaType, Digest: s.Digest, Size: s.Size})
	}
	_, image.Config, err = JSON(specs.MediaTypeImageConfig, config)
	return image, config, err
}

// FromImage returns the layer that an image was made of by Image.
func FromImage(image specs.Manifest) (m Manifest, err error) {
	ours, ok := image.Annotations[manifestAnnotation]
	if !ok {
		return m, fmt.Errorf("no annotation %s: another tool's image", manifestAnnotation)
	}
	if err := json.Unmarshal([]byte(ours), &m); err != nil {
		return m, err
	}
	if m.Key.IsZero() || !slices.EqualFunc(m.Steps, image.Layers, Descriptor.IsOf) {
		return m, fmt.Errorf("annotation %s: it lists other steps than the image has layers", manifestAnnotation)
	}
	return m, nil
}

// IsOf reports whether what is said of a step's blob is what an image says of it. A
// digest that is none must not be asked for its parts.
func (d Descriptor) IsOf(l specs.Descriptor) bool {
	return d.Digest == l.Digest && d.Size == l.Size && d.Size >= 0 && ValidDigest(d.Digest)
}

// ValidDigest reports whether a store can have a blob of this digest, a SHA-256. One that is
// malformed must not be asked for its parts: that panics.
func ValidDigest(d digest.Digest) bool { return d.Validate() == nil && d.Algorithm() == digest.SHA256 }

// OCIPlatform reads the beginning of a platform line, "linux/amd64 debian 12".
func OCIPlatform(line string) specs.Platform {
	words, _, _ := strings.Cut(line, " ")
	os, arch, _ := strings.Cut(words, "/")
	return specs.Platform{OS: os, Architecture: arch}
}

// JSON returns a value as it is stored, and what names those bytes.
func JSON(mediaType string, v any) ([]byte, specs.Descriptor, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, specs.Descriptor{}, err
	}
	return b.Bytes(), specs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b.Bytes()), Size: int64(b.Len())}, nil
}
