package cache

import (
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/dag/key"
)

// FindEach adds the steps that found lacks: it asks for the snapshot of each of the keys, n
// at a time, and leaves out those of which the answer is ErrNotCached. Any other error ends
// it; found has what was there until then.
func FindEach(ctx context.Context, store string, found map[key.Key]Found, keys []key.Key, n int, ask func(context.Context, key.Key) (Descriptor, error)) error {
	missing := slices.DeleteFunc(slices.Clone(keys), func(k key.Key) bool {
		_, ok := found[k]
		return ok
	})
	var mu sync.Mutex
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(n)
	for _, k := range missing {
		eg.Go(func() error {
			d, err := ask(ctx, k)
			if errors.Is(err, ErrNotCached) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found[k] = Found{Descriptor: d, Store: store}
			return nil
		})
	}
	return eg.Wait()
}
