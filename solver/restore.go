package solver

import (
	"context"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
)

// A blob is the packed snapshot of a step, near and verified. It stays readable
// when the store drops it meanwhile: the file is open.
type blob struct {
	desc cache.Descriptor
	file *os.File
}

// reader returns the blob from its beginning. Several readers may be in use.
func (b *blob) reader() io.Reader { return io.NewSectionReader(b.file, 0, b.desc.Size) }

// restore brings the snapshots of all cached steps near and verifies them,
// several at a time. One that is corrupt or gone turns its step, and what
// follows in its chain, into one to run.
func (b *builder) restore(ctx context.Context) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(b.r.jobs())
	var mu sync.Mutex
	var lost []key.Key
	for i := range b.sv.plan.Layers {
		for _, it := range b.sv.plan.Layers[i].Items {
			if it.State != dag.Cached {
				continue
			}
			eg.Go(func() error {
				d := b.sv.found[it.Key]
				file, err := b.fetchBlob(ctx, d)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					b.setBlob(it.Step, &blob{desc: d, file: file})
					b.r.emit(Event{Kind: EventRestored, Step: it.Step, Store: it.Found.Store, Bytes: d.Size})
				case ctx.Err() != nil:
					return ctx.Err()
				default:
					lost = append(lost, it.Key)
					b.r.warn("%s: its snapshot can't be used, so it is built anew: %v", it.Step.Pos(), err)
				}
				return nil
			})
		}
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	if len(lost) > 0 {
		b.sv.lose(lost...)
	}
	return nil
}

// fetchBlob opens a verified blob as a file.
func (b *builder) fetchBlob(ctx context.Context, d cache.Descriptor) (*os.File, error) {
	rc, err := b.r.Store.Open(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	return rc.(*os.File), nil // as Tier.Open promises
}

// prefetch starts the download of all sources that steps to run need, so that
// they come while other things are done. The steps wait for them where they
// are used.
func (b *builder) prefetch(ctx context.Context) {
	ctx, b.stopPrefetch = context.WithCancel(ctx)
	var eg errgroup.Group
	eg.SetLimit(b.r.jobs())
	sources := b.sv.plan.Sources()
	b.prefetching.Go(func() {
		for _, ps := range sources {
			if ps.State == dag.ToRun {
				eg.Go(func() error {
					// An error is the step's, which asks for the same again.
					_, _ = b.r.changes(ctx, ps.Source.Steps[0])
					return nil
				})
			}
		}
		_ = eg.Wait()
	})
}
