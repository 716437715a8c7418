package oci_test

import (
	"context"
	"io"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/dag/key"
)

// sessions is a store of which every call is a session of its own.
type sessions struct{ next func() *oci.Store }

func (s sessions) Name() string { return "oci" }

func (s sessions) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Descriptor, error) {
	return s.next().Find(ctx, tag, keys)
}

func (s sessions) Open(ctx context.Context, d cache.Descriptor, offset int64) (io.ReadCloser, error) {
	return s.next().Open(ctx, d, offset)
}

func (s sessions) Put(ctx context.Context, d cache.Descriptor, blob io.ReaderAt) error {
	return s.next().Put(ctx, d, blob)
}

func (s sessions) Complete(ctx context.Context, m cache.Manifest) error {
	return s.next().Complete(ctx, m)
}

func (s sessions) List(ctx context.Context) ([]cache.Manifest, error) { return s.next().List(ctx) }

func (s sessions) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	return s.next().Remove(ctx, ms)
}
