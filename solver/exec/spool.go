package exec

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/exec/internal/failure"
)

// pack writes changes into a file of their own. Where the disk is full, or can't
// be written, it begins again in the next place: no store is needed to build.
func (b *builder) pack(ctx context.Context, changes snapshot.Changes) (*cache.Blob, snapshot.Packed, error) {
	var failed []error
	for _, create := range b.spools() {
		bytes, err := create()
		if err != nil {
			failed = append(failed, err)
			continue
		}
		w := &spoolWriter{w: bytes}
		packed, err := snapshot.Pack(ctx, w, changes, snapshot.PackOptions{Level: b.Compression})
		if err == nil {
			bytes.Packed(packed.Digest)
			return bytes, packed, nil
		}
		bytes.Close()
		if w.err == nil {
			return nil, snapshot.Packed{}, err
		}
		failed = append(failed, w.err)
	}
	return nil, snapshot.Packed{}, fmt.Errorf("no store accepted the snapshot:\n  %w", failure.Lines(failed))
}

// spools are the places to pack into: where a store can take the file without a
// copy, the root's work directory, and the system's for temporary files.
func (b *builder) spools() []func() (*cache.Blob, error) {
	var all []func() (*cache.Blob, error)
	if b.Spool != nil && b.Push {
		all = append(all, b.Spool) // if it fails, so does Put, which says so
	}
	return append(all, func() (*cache.Blob, error) {
		work, err := b.work, error(nil)
		if work == "" {
			if work, err = b.root.WorkDir(); err != nil {
				return nil, err
			}
		}
		return cache.Create(work)
	}, func() (*cache.Blob, error) { return cache.Create("") })
}

// A spoolWriter remembers that writing failed: an error of packing is of what is
// read otherwise.
type spoolWriter struct {
	w   io.Writer
	err error
}

func (s *spoolWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = errors.Join(s.err, err)
	return n, err
}
