package exec

import (
	"context"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/exec/internal/spool"
)

// pack writes changes into a file of their own: where a store can take the file without a
// copy, in the root's work directory, or in the system's for temporary files.
func (b *builder) pack(ctx context.Context, changes snapshot.Changes) (*cache.Blob, snapshot.Packed, error) {
	var places []spool.Place
	if b.Spool != nil && b.Push {
		places = append(places, spool.Place(b.Spool)) // if it fails, so does Put, which says so
	}
	places = append(places, func() (*cache.Blob, error) {
		work, err := b.work, error(nil)
		if work == "" {
			if work, err = b.root.WorkDir(); err != nil {
				return nil, err
			}
		}
		return cache.Create(work)
	}, func() (*cache.Blob, error) { return cache.Create("") })
	return spool.Pack(ctx, places, changes, snapshot.PackOptions{Level: b.Compression})
}
