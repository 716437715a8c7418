package images

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/frontend/imageref"
)

// maxManifest bounds a manifest, an index and a config, in bytes. Registries take no larger ones.
const maxManifest = 4 << 20

// The media types of Docker that stand for those of OCI.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// A document is a manifest or an index.
type document struct {
	MediaType     string             `json:"mediaType"`
	SchemaVersion int                `json:"schemaVersion"`
	Manifests     []specs.Descriptor `json:"manifests"` // of an index
	Config        specs.Descriptor   `json:"config"`
	Layers        []specs.Descriptor `json:"layers"`
}

// isIndex reports whether a document lists manifests. What has no media type is told by what it
// lists.
func (d *document) isIndex() bool {
	switch d.MediaType {
	case specs.MediaTypeImageIndex, dockerIndex:
		return true
	case "":
		return d.Manifests != nil
	}
	return false
}

// parse reads a document.
func parse(ref imageref.Ref, data []byte, mediaType string) (*document, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("%s: its manifest is no JSON: %w", ref, err)
	}
	if d.MediaType == "" {
		d.MediaType = mediaType
	}
	switch {
	case d.SchemaVersion == 1:
		return nil, &Fault{Message: fmt.Sprintf("%s is of an image format of before 2016", ref), Hint: "push it again with a current version of docker"}
	case d.isIndex():
		return &d, nil
	case !slices.Contains([]string{"", specs.MediaTypeImageManifest, dockerManifest}, d.MediaType),
		!slices.Contains([]string{specs.MediaTypeImageConfig, dockerConfig}, d.Config.MediaType):
		return nil, &Fault{Message: fmt.Sprintf("%s is no image, but %q", ref, kind(&d))}
	}
	for _, l := range append([]specs.Descriptor{d.Config}, d.Layers...) {
		if err := l.Digest.Validate(); err != nil || l.Digest.Algorithm() != digest.SHA256 || l.Size < 0 {
			return nil, fmt.Errorf("%s: its manifest names a blob that cannot be: %.100q of %d bytes", ref, l.Digest, l.Size)
		}
	}
	for _, l := range d.Layers {
		if !isLayer(l.MediaType) {
			return nil, &Fault{Message: fmt.Sprintf("%s has a layer that is none of files, but %.100q", ref, l.MediaType)}
		}
	}
	return &d, nil
}

// kind is what a manifest is of, in the words of its media types.
func kind(d *document) string {
	if d.Config.MediaType != "" {
		return d.Config.MediaType
	}
	return d.MediaType
}

// isLayer reports whether a media type is of a tar. How that is compressed is told by its bytes.
func isLayer(mediaType string) bool {
	for _, prefix := range []string{"application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."} {
		if rest, ok := strings.CutPrefix(mediaType, prefix); ok {
			return strings.Contains(rest, "tar") && !strings.HasSuffix(rest, "encrypted")
		}
	}
	return false
}

// resolve asks what a name stands for.
func (s *Source) resolve(ctx context.Context, ref imageref.Ref) (digest.Digest, error) {
	if ref.Layout != "" {
		dg, err := inLayout(ref)
		if err != nil {
			return "", err
		}
		return s.choose(ctx, ref, dg, "")
	}
	return s.ask(ctx, ref)
}

// choose returns the digest of the manifest for the platform, where dg is of it or of an index.
func (s *Source) choose(ctx context.Context, ref imageref.Ref, dg digest.Digest, mediaType string) (digest.Digest, error) {
	if slices.Contains([]string{specs.MediaTypeImageManifest, dockerManifest}, mediaType) {
		return dg, nil // which says its platform in its config, if at all
	}
	for range 3 { // an index may list others
		d, err := s.document(ctx, ref, dg)
		if err != nil {
			return "", err
		}
		if !d.isIndex() {
			return dg, nil
		}
		if dg, err = s.forPlatform(ref, d.Manifests); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%s: an index of indexes of indexes", ref)
}

// document reads a manifest or an index.
func (s *Source) document(ctx context.Context, ref imageref.Ref, dg digest.Digest) (*document, error) {
	data, mediaType, err := s.text(ctx, ref, dg)
	if err != nil {
		return nil, err
	}
	return parse(ref, data, mediaType)
}

// manifest reads the manifest for the platform, given a pin.
func (s *Source) manifest(ctx context.Context, ref imageref.Ref, pin digest.Digest) (*document, error) {
	dg, err := s.choose(ctx, ref, pin, "")
	if err != nil {
		return nil, err
	}
	return s.document(ctx, ref, dg)
}

// config reads the config of an image, and warns if it is for another platform: as docker does,
// an image that is for one alone is taken all the same.
func (s *Source) config(ctx context.Context, ref imageref.Ref, m *document) (c Config, err error) {
	if m.Config.Size > maxManifest {
		return c, fmt.Errorf("%s: a config of %d bytes", ref, m.Config.Size)
	}
	data, err := s.small(ctx, ref, m.Config)
	if err != nil {
		return c, err
	}
	var im struct {
		specs.Platform
		Config Config
	}
	if err := json.Unmarshal(data, &im); err != nil {
		return c, fmt.Errorf("%s: its config is no JSON: %w", ref, err)
	}
	if im.OS != "" && im.Architecture != "" && rank(s.Platform, im.Platform) < 0 {
		s.warn("%s is for %s, and this machine is %s", ref, platformName(im.Platform), s.Platform)
	}
	return im.Config, nil
}

// forPlatform chooses among the manifests of an index.
func (s *Source) forPlatform(ref imageref.Ref, list []specs.Descriptor) (digest.Digest, error) {
	best := -1
	var chosen digest.Digest
	var has []string
	for _, d := range list {
		if d.Platform == nil || d.Platform.OS == "unknown" { // an attestation
			if d.Platform == nil && len(list) == 1 {
				return d.Digest, d.Digest.Validate()
			}
			continue
		}
		if r := rank(s.Platform, *d.Platform); r >= 0 && (best < 0 || r < best) {
			best, chosen = r, d.Digest
		}
		if name := platformName(*d.Platform); !slices.Contains(has, name) && len(has) < 20 {
			has = append(has, name)
		}
	}
	if best < 0 {
		return "", &Fault{Message: fmt.Sprintf("%s is not there for %s", ref, s.Platform), Detail: "it is for " + strings.Join(has, ", "), Hint: "another tag may be"}
	}
	return chosen, chosen.Validate()
}

// platformName is a platform as docker has it.
func platformName(p specs.Platform) string {
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return fmt.Sprintf("%.60s", name)
}

// rank returns how well an image of a platform fits a machine: 0 is best, and -1 not at all. As
// containerd has it, a machine of 64 bits runs programs of 32, and one of arm those of older ones.
func rank(machine string, p specs.Platform) int {
	os, rest, _ := strings.Cut(machine, "/")
	arch, variant, _ := strings.Cut(rest, "/")
	if p.OS != os {
		return -1
	}
	have := p.Architecture + "/" + p.Variant
	var order []string
	switch arch {
	case "amd64":
		order = []string{"amd64/", "amd64/v1", "386/"}
	case "arm64":
		order = []string{"arm64/v8", "arm64/", "arm/v8", "arm/v7", "arm/", "arm/v6", "arm/v5"}
	case "arm":
		order = []string{"arm/v8", "arm/v7", "arm/", "arm/v6", "arm/v5"}
		switch variant {
		case "v5":
			order = order[4:]
		case "v6":
			order = order[3:]
		case "v8":
		default:
			order = order[1:]
		}
	default:
		order = []string{arch + "/" + variant, arch + "/"}
	}
	return slices.Index(order, have)
}
