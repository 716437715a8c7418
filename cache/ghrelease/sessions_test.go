package ghrelease_test

import (
	"context"
	"io"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/ghrelease"
	"github.com/clayer/clayer/dag/key"
)

// sessions looks with a store that knows nothing, each time.
type sessions struct {
	*ghrelease.Store
	next func() *ghrelease.Store
}

func (s *sessions) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Descriptor, error) {
	return s.next().Find(ctx, tag, keys)
}

func (s *sessions) Open(ctx context.Context, d cache.Descriptor, offset int64) (io.ReadCloser, error) {
	return s.next().Open(ctx, d, offset)
}

func (s *sessions) List(ctx context.Context) ([]cache.Manifest, error) { return s.next().List(ctx) }

func (s *sessions) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	return s.next().Remove(ctx, ms)
}
