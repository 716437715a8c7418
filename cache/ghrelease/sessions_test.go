package ghrelease_test

import (
	"context"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/ghrelease"
	"github.com/clayer/clayer/dag/key"
)

// sessions looks with a store that knows nothing, each time.
type sessions struct {
	*ghrelease.Store
	next func() *ghrelease.Store
}

func (s *sessions) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	return s.next().Find(ctx, tag, keys)
}

func (s *sessions) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	return s.next().Fetch(ctx, d, b)
}

func (s *sessions) List(ctx context.Context) ([]cache.Manifest, error) { return s.next().List(ctx) }

func (s *sessions) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	return s.next().Remove(ctx, ms)
}

func (s *sessions) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	return s.next().Variants(ctx, tag, keys)
}
