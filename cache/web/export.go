package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	specsgo "github.com/opencontainers/image-spec/specs-go"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/safefile"
)

// piecesAnnotation says in the manifest of a layer which of its blobs are in pieces: by
// digest, the digests and sizes of the pieces, in order.
const piecesAnnotation = "dev.clayer.pieces"

// A piece is a part of a blob that is a file of its own.
type piece struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// A step is what the file of a step holds.
type step struct {
	cache.Descriptor
	Pieces []piece `json:"pieces,omitempty"`
}

// Exported counts what Export wrote.
type Exported struct {
	Layers int   `json:"layers"`
	Files  int   `json:"files"` // that were not there
	Bytes  int64 `json:"bytes"` // in them
}

// ErrDirStore says that a directory is one that clayer stores snapshots in.
var ErrDirStore = errors.New("a directory store, which can be served as it is")

// Export writes layers of a store into a directory, as a Store reads them from a web
// server that has a copy of it. Layers that are there stay. Blobs of more than maxFile
// bytes are written in pieces; 0 means never. The index is written last: an error leaves
// a directory that has what it had.
func Export(ctx context.Context, dir string, from cache.Store, layers []cache.Manifest, maxFile int64) (x Exported, err error) {
	root, err := safefile.MakeDir(dir, 0o755)
	if err != nil {
		return x, err
	}
	defer root.Close()
	if _, err := root.Lstat("written"); err == nil {
		return x, fmt.Errorf("%s: %w", dir, ErrDirStore)
	}
	if maxFile == 0 {
		maxFile = math.MaxInt64
	}
	e := &exporter{root: root, from: from, max: maxFile, done: make(map[digest.Digest][]piece)}
	index, err := e.readIndex()
	if err != nil {
		return e.Exported, err
	}
	for _, m := range layers {
		desc, err := e.layer(ctx, m)
		if err != nil {
			return e.Exported, fmt.Errorf("%s: %w", m.Tag(), err)
		}
		index = slices.DeleteFunc(index, func(d specs.Descriptor) bool { return d.Annotations[specs.AnnotationRefName] == m.Tag() })
		index = append(index, desc)
		e.Layers++
	}
	if err := e.write(specs.ImageLayoutFile, specs.ImageLayout{Version: specs.ImageLayoutVersion}); err != nil {
		return e.Exported, err
	}
	return e.Exported, e.write(specs.ImageIndexFile, specs.Index{Versioned: specsgo.Versioned{SchemaVersion: 2}, MediaType: specs.MediaTypeImageIndex, Manifests: index})
}

type exporter struct {
	Exported
	root *os.Root
	from cache.Store
	max  int64
	done map[digest.Digest][]piece // blobs that are written
}

func (e *exporter) readIndex() ([]specs.Descriptor, error) {
	data, err := safefile.ReadFile(e.root, specs.ImageIndexFile, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var index specs.Index
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", specs.ImageIndexFile, err)
	}
	return index.Manifests, nil
}

// layer writes a layer, all but its place in the index, and returns that.
func (e *exporter) layer(ctx context.Context, m cache.Manifest) (desc specs.Descriptor, err error) {
	inPieces := make(map[digest.Digest][]piece)
	for _, d := range m.Steps {
		pieces, err := e.blob(ctx, d)
		if err != nil {
			return desc, fmt.Errorf("step %s: %w", d.Key.Short(), err)
		}
		if pieces != nil {
			inPieces[d.Digest] = pieces
		}
		if err := e.write(stepName(d.Key), step{d, pieces}); err != nil {
			return desc, err
		}
	}
	image, config, err := m.Image()
	if err != nil {
		return desc, err
	}
	if len(inPieces) > 0 {
		data, err := json.Marshal(inPieces)
		if err != nil {
			return desc, err
		}
		image.Annotations[piecesAnnotation] = string(data)
	}
	data, desc, err := cache.JSON(specs.MediaTypeImageManifest, image)
	if err != nil {
		return desc, err
	}
	desc.Platform, desc.Annotations = &config.Platform, map[string]string{specs.AnnotationRefName: m.Tag()}
	if err := e.write(blobName(image.Config.Digest), config); err != nil {
		return desc, err
	}
	return desc, e.writeBytes(blobName(desc.Digest), data)
}

// blob writes the snapshot of a step, and returns its pieces; nil if it is one file.
func (e *exporter) blob(ctx context.Context, d cache.Descriptor) ([]piece, error) {
	if pieces, ok := e.done[d.Digest]; ok {
		return pieces, nil
	}
	var b cache.Blob
	defer b.Close()
	if err := cache.Fetch(ctx, e.from, d, &b); err != nil {
		return nil, err
	}
	if d.Size <= e.max {
		e.done[d.Digest] = nil
		return nil, e.writeFile(blobName(d.Digest), io.NewSectionReader(&b, 0, d.Size), d.Size)
	}
	var pieces []piece
	for off := int64(0); off < d.Size; off += e.max {
		part := io.NewSectionReader(&b, off, min(e.max, d.Size-off))
		dg, err := digest.FromReader(part)
		if err != nil {
			return nil, err
		}
		if _, err := part.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		if err := e.writeFile(blobName(dg), part, part.Size()); err != nil {
			return nil, err
		}
		pieces = append(pieces, piece{dg, part.Size()})
	}
	e.done[d.Digest] = pieces
	return pieces, nil
}

func (e *exporter) write(name string, v any) error {
	data, _, err := cache.JSON("", v)
	if err != nil {
		return err
	}
	return e.writeBytes(name, data)
}

func (e *exporter) writeBytes(name string, data []byte) error {
	there, err := safefile.ReadFile(e.root, name, int64(len(data)))
	if err == nil && string(there) == string(data) {
		return nil
	}
	return e.add(name, int64(len(data)), func() error { return safefile.WriteFile(e.root, name, tempPrefix, data) })
}

// tempPrefix begins the names of files that are being written.
const tempPrefix = ".tmp-"

// writeFile writes a file whose name says what is in it.
func (e *exporter) writeFile(name string, r io.Reader, size int64) error {
	if info, err := e.root.Lstat(name); err == nil && info.Mode().IsRegular() && info.Size() == size {
		return nil
	}
	return e.add(name, size, func() error {
		f, temp, err := safefile.CreateTemp(e.root, tempPrefix)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if err = errors.Join(err, f.Close()); err == nil {
			err = e.root.Rename(temp, name)
		}
		if err != nil {
			_ = e.root.Remove(temp)
		}
		return err
	})
}

func (e *exporter) add(name string, size int64, write func() error) error {
	if err := safefile.MkdirAll(e.root, path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	e.Files++
	e.Bytes += size
	return nil
}
