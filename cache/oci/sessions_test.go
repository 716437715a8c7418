package oci_test

import (
	"context"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/dag/key"
)

// sessions is a store of which every call is a session of its own.
type sessions struct{ next func() *oci.Store }

func (s sessions) Name() string { return "oci" }

func (s sessions) Location() string { return s.next().Location() }

func (s sessions) Writable() error { return s.next().Writable() }

func (s sessions) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	return s.next().Find(ctx, tag, keys)
}

func (s sessions) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	return s.next().Fetch(ctx, d, b)
}

func (s sessions) Put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	return s.next().Put(ctx, d, b)
}

func (s sessions) Complete(ctx context.Context, m cache.Manifest) error {
	return s.next().Complete(ctx, m)
}

func (s sessions) List(ctx context.Context) ([]cache.Manifest, error) { return s.next().List(ctx) }

func (s sessions) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	return s.next().Remove(ctx, ms)
}

func (s sessions) Interrupted(ctx context.Context) ([]cache.Manifest, error) {
	return s.next().Interrupted(ctx)
}

func (s sessions) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	return s.next().Variants(ctx, tag, keys)
}
