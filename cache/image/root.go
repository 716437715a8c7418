package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	specsgo "github.com/opencontainers/image-spec/specs-go"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
)

// PlatformLabel is the label of an image that is the root of a machine: its platform, as
// keys have it.
const PlatformLabel = "dev.clayer.platform"

// ErrNoBase says that an image is not the root of a machine.
var ErrNoBase = errors.New("it is no base that clayer has exported: it has no label " + PlatformLabel)

// A Root is the root of a machine, which is written as an image of one layer.
type Root struct {
	Platform string   // as keys have it
	Env      []string // NAME=value: what a container of it begins with
	Changes  snapshot.Changes

	// Check is called with the snapshot before anything gets its name. Its error ends it.
	Check func(blob io.ReaderAt, size int64) error
}

// rootName is the tag of a root in its layout.
const rootName = "base"

// WriteRoot writes a root to dest, as Write does an image.
func WriteRoot(ctx context.Context, dest string, root Root, gzip bool) (Written, error) {
	return write(ctx, dest, func(l *layout) (Written, error) { return l.writeRoot(ctx, root, gzip) })
}

func (l *layout) writeRoot(ctx context.Context, root Root, gzip bool) (w Written, err error) {
	f, err := os.Create(filepath.Join(l.dir, "root"))
	if err != nil {
		return w, err
	}
	defer f.Close()
	packed, err := snapshot.Pack(ctx, f, root.Changes, snapshot.PackOptions{})
	if err == nil {
		err = root.Check(f, packed.Size)
	}
	if err != nil {
		return w, err
	}
	layer := specs.Descriptor{MediaType: snapshot.MediaType, Digest: packed.Digest, Size: packed.Size}
	if gzip {
		if layer, err = l.addGzip(ctx, io.NewSectionReader(f, 0, packed.Size), packed.DiffID); err == nil {
			err = os.Remove(f.Name())
		}
	} else if err = errors.Join(f.Chmod(0o644), f.Sync()); err == nil {
		l.size += packed.Size
		err = os.Rename(f.Name(), filepath.Join(l.blobs(), packed.Digest.Encoded()))
	}
	if err != nil {
		return w, err
	}
	config := document{Image: specs.Image{
		Created: &epoch, Platform: cache.OCIPlatform(root.Platform),
		RootFS:  specs.RootFS{Type: "layers", DiffIDs: []digest.Digest{packed.DiffID}},
		History: []specs.History{{Created: &epoch, CreatedBy: "clayer base export"}},
	}}
	config.Config.Env, config.Config.Labels = root.Env, map[string]string{PlatformLabel: root.Platform}
	manifest := specs.Manifest{Versioned: specsgo.Versioned{SchemaVersion: 2}, MediaType: specs.MediaTypeImageManifest, Layers: []specs.Descriptor{layer}}
	return l.index(rootName, config, manifest)
}

// PlatformOf returns the platform of the machine whose root a layout holds: DIR, or DIR:TAG.
func PlatformOf(name string) (string, error) {
	b, err := openBase(name, specs.Platform{})
	if err != nil {
		return "", fmt.Errorf("base %s: %w", name, err)
	}
	if b.config.Config.Labels[PlatformLabel] == "" {
		return "", fmt.Errorf("base %s: %w", name, ErrNoBase)
	}
	return b.config.Config.Labels[PlatformLabel], nil
}
