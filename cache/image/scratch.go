package image

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
)

// hasScratch reports whether a snapshot holds what no root gets.
func hasScratch(blob io.ReaderAt, size int64) (bool, error) {
	listed := true
	for e, err := range snapshot.List(blob, size) {
		if errors.Is(err, snapshot.ErrNoTOC) {
			listed = false
			break
		}
		if err != nil || snapshot.IsScratch(e.Path) {
			return err == nil, err
		}
	}
	if listed {
		return false, nil
	}
	for e, err := range snapshot.Read(io.NewSectionReader(blob, 0, size)) {
		if err != nil || snapshot.IsScratch(e.Path) {
			return err == nil, err
		}
	}
	return false, nil
}

// withoutScratch packs a snapshot again, as a root gets it: d becomes its descriptor. The
// file is to be closed, and has no name.
func (l *layout) withoutScratch(ctx context.Context, blob io.ReaderAt, d *cache.Descriptor) (*os.File, error) {
	f, err := os.CreateTemp(l.dir, "part-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		var packed snapshot.Packed
		changes := snapshot.ForRoot(snapshot.Read(io.NewSectionReader(blob, 0, d.Size)), nil)
		packed, err = snapshot.Pack(ctx, f, changes, snapshot.PackOptions{})
		d.Digest, d.Size, d.DiffID, d.Frames = packed.Digest, packed.Size, packed.DiffID, packed.Frames
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
