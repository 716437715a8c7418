package cache

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/dag/key"
)

// Copied counts what Copy moved.
type Copied struct {
	Steps int   // those that were not there
	Bytes int64 // of their blobs
}

// copies is how many blobs are under way at a time.
const copies = 8

// Copy copies a layer from one store into another: the steps that the other
// lacks, verified, and then the layer.
func Copy(ctx context.Context, from, to Store, m Manifest) (Copied, error) {
	var c Copied
	keys := make([]key.Key, len(m.Steps))
	for i, d := range m.Steps {
		keys[i] = d.Key
	}
	there, err := to.Find(ctx, m.Tag(), keys)
	if err != nil {
		return c, fmt.Errorf("%s: %w", to.Name(), err)
	}
	for _, d := range m.Steps {
		if there[d.Key].Digest != d.Digest {
			c.Steps++
			c.Bytes += d.Size
		}
	}
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(copies)
	for _, d := range m.Steps {
		if there[d.Key].Digest == d.Digest {
			continue
		}
		eg.Go(func() error {
			var b Blob
			defer b.Close()
			if err := Fetch(gctx, from, d, &b); err != nil {
				return fmt.Errorf("%s: step %s: %w", from.Name(), d.Key.Short(), err)
			}
			if err := to.Put(gctx, d, &b); err != nil {
				return fmt.Errorf("%s: step %s: %w", to.Name(), d.Key.Short(), err)
			}
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return c, err
	}
	if err := to.Complete(ctx, m); err != nil {
		return c, fmt.Errorf("%s: %w", to.Name(), err)
	}
	return c, nil
}
