package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
)

// pack writes changes into a file of their own. Where the disk is full, or can't
// be written, it begins again in the next place: no store is needed to build.
func (b *builder) pack(ctx context.Context, changes snapshot.Changes) (*os.File, snapshot.Packed, error) {
	var failed []error
	for _, create := range b.spools() {
		file, err := create()
		if err != nil {
			failed = append(failed, err)
			continue
		}
		w := &spoolWriter{w: file}
		packed, err := snapshot.Pack(ctx, w, changes, snapshot.PackOptions{Level: b.Compression})
		if err == nil {
			return file, packed, nil
		}
		b.discard(file)
		file.Close()
		if w.err == nil {
			return nil, snapshot.Packed{}, err
		}
		failed = append(failed, w.err)
	}
	return nil, snapshot.Packed{}, fmt.Errorf("no store accepted the snapshot:\n  %w", joinLines(failed))
}

// spools are the places to pack into: where a store can take the file without a
// copy, the root's work directory, and the system's for temporary files.
func (b *builder) spools() []func() (*os.File, error) {
	var all []func() (*os.File, error)
	if b.Spool != nil && b.Push {
		all = append(all, b.Spool.Create) // if it fails, so does Put, which says so
	}
	return append(all, func() (*os.File, error) {
		work, err := b.work, error(nil)
		if work == "" {
			if work, err = b.root.WorkDir(); err != nil {
				return nil, err
			}
		}
		return cache.TempFile(work)
	}, func() (*os.File, error) { return cache.TempFile("") })
}

// discard removes a spool file that is in no store; the others have no name.
func (b *builder) discard(f *os.File) {
	if b.Spool != nil {
		b.Spool.Discard(f)
	}
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
