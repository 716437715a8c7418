package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
)

// A memory is a store that lasts as long as its process. The package storetest has the
// suite that every store passes.
type memory struct {
	mu     sync.Mutex
	steps  map[key.Key]cache.Descriptor
	blobs  map[digest.Digest][]byte
	layers []cache.Manifest
}

func (m *memory) Name() string { return "memory" }

func (m *memory) Location() string { return "memory" }

func (m *memory) Writable() error { return nil }

func (m *memory) Find(_ context.Context, _ string, keys []key.Key) (map[key.Key]cache.Found, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make(map[key.Key]cache.Found)
	for _, k := range keys {
		if d, ok := m.steps[k]; ok {
			found[k] = cache.Found{Descriptor: d, Store: m.Name()}
		}
	}
	return found, nil
}

func (m *memory) Fetch(_ context.Context, d cache.Descriptor, b *cache.Blob) error {
	m.mu.Lock()
	data, ok := m.blobs[d.Digest]
	m.mu.Unlock()
	if !ok {
		return cache.ErrNotCached
	}
	return b.Fill("", d, func(w cache.Writer) error {
		_, err := w.WriteAt(data, 0)
		return err
	})
}

func (m *memory) Put(_ context.Context, d cache.Descriptor, b *cache.Blob) error {
	data, err := io.ReadAll(io.NewSectionReader(b, 0, d.Size))
	if err != nil {
		return err
	}
	if digest.FromBytes(data) != d.Digest {
		return fmt.Errorf("the bytes are not those of %s", d.Digest)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps[d.Key], m.blobs[d.Digest] = d, bytes.Clone(data)
	return nil
}

func (m *memory) Complete(_ context.Context, layer cache.Manifest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.layers = append(slices.DeleteFunc(m.layers, func(l cache.Manifest) bool { return l.Tag() == layer.Tag() }), layer)
	return nil
}

func (m *memory) List(context.Context) ([]cache.Manifest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(slices.Values(m.layers), cache.NewestFirst), nil
}

func (m *memory) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	found, err := m.Find(ctx, tag, keys)
	all := make(map[key.Key][]cache.Found)
	for k, f := range found {
		all[k] = []cache.Found{f}
	}
	return all, err
}

func (m *memory) Interrupted(context.Context) ([]cache.Manifest, error) { return nil, nil }

func (m *memory) Remove(_ context.Context, layers []cache.Manifest) (freed int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, gone := range layers {
		m.layers = slices.DeleteFunc(m.layers, func(l cache.Manifest) bool { return l.Tag() == gone.Tag() })
		for _, d := range gone.Steps {
			freed += int64(len(m.blobs[d.Digest]))
			delete(m.steps, d.Key)
			delete(m.blobs, d.Digest)
		}
	}
	return freed, nil
}

func ExampleStore() {
	ctx := context.Background()
	var store cache.Store = &memory{steps: make(map[key.Key]cache.Descriptor), blobs: make(map[digest.Digest][]byte)}

	packed, err := cache.Create("")
	if err != nil {
		log.Fatal(err)
	}
	defer packed.Close()
	fmt.Fprint(packed, "a snapshot")
	d := cache.Descriptor{Key: key.Sum("example", func(w key.Writer) { w.Field("step", "1") }), Digest: digest.FromString("a snapshot"), Size: 10}
	packed.Packed(d.Digest)
	if err := store.Put(ctx, d, packed); err != nil {
		log.Fatal(err)
	}

	var fetched cache.Blob
	defer fetched.Close()
	if err := cache.Fetch(ctx, store, d, &fetched); err != nil {
		log.Fatal(err)
	}
	fmt.Println(fetched.State())
	// Output: verified
}
