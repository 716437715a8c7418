// Package spool packs snapshots into files of their own, wherever there is a disk that takes
// them.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/exec/internal/failure"
)

// A Place makes the file that a snapshot is packed into.
type Place func() (*cache.Blob, error)

// Pack writes changes into a file of their own. Where the disk is full, or can't
// be written, it begins again in the next place: no store is needed to build.
func Pack(ctx context.Context, places []Place, changes snapshot.Changes, opt snapshot.PackOptions) (*cache.Blob, snapshot.Packed, error) {
	var failed []error
	for _, create := range places {
		bytes, err := create()
		if err != nil {
			failed = append(failed, err)
			continue
		}
		w := &writer{w: bytes}
		packed, err := snapshot.Pack(ctx, w, changes, opt)
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

// A writer remembers that writing failed: an error of packing is of what is
// read otherwise.
type writer struct {
	w   io.Writer
	err error
}

func (s *writer) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = errors.Join(s.err, err)
	return n, err
}
