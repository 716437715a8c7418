package cache

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/dag/key"
)

// Copied counts what Copy moved.
type Copied struct {
	Steps    int   // those that were not there
	Variants int   // further snapshots of steps
	Bytes    int64 // of the blobs of both
}

// copies is how many blobs are under way at a time.
const copies = 8

// Copy copies a layer from one store into another: the snapshots that the other lacks of
// its steps, verified, and then the layer.
func Copy(ctx context.Context, from, to Store, m Manifest) (Copied, error) {
	var c Copied
	keys := make([]key.Key, len(m.Steps))
	for i, d := range m.Steps {
		keys[i] = d.Key
	}
	has, err := from.Variants(ctx, m.Tag(), keys)
	if err != nil {
		return c, fmt.Errorf("%s: %w", from.Name(), err)
	}
	there, err := to.Variants(ctx, m.Tag(), keys)
	if err != nil {
		return c, fmt.Errorf("%s: %w", to.Name(), err)
	}
	var steps, variants []Descriptor
	var twins []Descriptor // steps of which the other store has the same variant, with other bytes
	for _, d := range m.Steps {
		switch twin := Twin(d, there[d.Key]); {
		case twin == "":
			steps = append(steps, d)
		case twin != d.Digest:
			d.Replaces = twin
			twins = append(twins, d)
		}
		for _, f := range has[d.Key] {
			if f.VariantID() != d.VariantID() && Twin(f.Descriptor, there[d.Key]) == "" {
				variants = append(variants, f.Descriptor)
			}
		}
	}
	c.Steps, c.Variants = len(steps), len(variants)
	for _, list := range [][]Descriptor{steps, variants} { // what the layer names is first
		if err := c.copy(ctx, from, to, list); err != nil {
			return c, err
		}
	}
	err = to.Complete(ctx, m)
	if errors.Is(err, ErrNotCached) && len(twins) > 0 { // it has no such layer
		c.Steps += len(twins)
		if err := c.copy(ctx, from, to, twins); err != nil {
			return c, err
		}
		err = to.Complete(ctx, m)
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w", to.Name(), err)
	}
	return c, nil
}

func (c *Copied) copy(ctx context.Context, from, to Store, steps []Descriptor) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(copies)
	for _, d := range steps {
		c.Bytes += d.Size
		eg.Go(func() error {
			var b Blob
			defer b.Close()
			if err := FetchNear(ctx, from, d, &b, []Store{to}); err != nil {
				return fmt.Errorf("%s: step %s: %w", from.Name(), d.Key.Short(), err)
			}
			if err := to.Put(ctx, d, &b); err != nil {
				return fmt.Errorf("%s: step %s: %w", to.Name(), d.Key.Short(), err)
			}
			return nil
		})
	}
	return eg.Wait()
}
