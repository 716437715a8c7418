package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/dag/key"
)

// A Tier is several stores as one: near ones first. What a farther one had is
// kept in the nearer ones, and what is put goes to all. A store that fails is
// told to warn and fails nothing that another one can do.
type Tier struct {
	stores []Keeper
	warn   func(store string, err error)

	mu    sync.Mutex
	where map[key.Key]int // the nearest store that Find saw a key in
}

// Tiered makes a Tier. warn is told of stores that fail, possibly several times
// and from several goroutines.
func Tiered(warn func(store string, err error), stores ...Keeper) *Tier {
	return &Tier{stores: stores, warn: warn, where: make(map[key.Key]int)}
}

// Name returns the names of the stores, in order.
func (t *Tier) Name() string {
	var names []string
	for _, s := range t.stores {
		if !slices.Contains(names, s.Name()) {
			names = append(names, s.Name())
		}
	}
	return strings.Join(names, ", ")
}

// Holder returns the name of the nearest store that Find saw the key in.
func (t *Tier) Holder(k key.Key) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, ok := t.where[k]; ok {
		return t.stores[i].Name()
	}
	return ""
}

// Find asks all stores at the same time and prefers the nearest.
func (t *Tier) Find(ctx context.Context, layer string, keys []key.Key) (map[key.Key]Descriptor, error) {
	found := make([]map[key.Key]Descriptor, len(t.stores))
	var eg errgroup.Group
	for i, s := range t.stores {
		eg.Go(func() error {
			m, err := s.Find(ctx, layer, keys)
			if err != nil && ctx.Err() == nil {
				t.warn(s.Name(), err)
			}
			found[i] = m
			return nil
		})
	}
	_ = eg.Wait() // no store's error is the Tier's
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[key.Key]Descriptor)
	for i, m := range slices.Backward(found) {
		maps.Copy(all, m)
		for k := range m {
			t.where[k] = i
		}
	}
	return all, nil
}

// Open opens the blob in the nearest store that has it, verified; it is an
// *os.File. What a farther one had is first kept in the nearer ones.
func (t *Tier) Open(ctx context.Context, d Descriptor, offset int64) (io.ReadCloser, error) {
	var errs []error
	for i, s := range t.stores {
		f, err := OpenVerified(ctx, s, d, "")
		if ctx.Err() != nil {
			if err == nil {
				f.Close()
			}
			return nil, context.Cause(ctx)
		}
		if err != nil {
			if !errors.Is(err, ErrNotCached) {
				t.warn(s.Name(), err)
			}
			errs = append(errs, fmt.Errorf("%s: %w", s.Name(), err))
			continue
		}
		t.keep(ctx, t.stores[:i], d, f)
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	// A blob that no store could give is a miss, whatever the reasons.
	return nil, fmt.Errorf("%w: %w", ErrNotCached, errors.Join(errs...))
}

func (t *Tier) keep(ctx context.Context, nearer []Keeper, d Descriptor, f *os.File) {
	for _, s := range nearer {
		if err := s.Put(ctx, d, f); err != nil {
			t.warn(s.Name(), err)
		}
	}
}

// Put puts the blob into all stores; those that fail are in the error, and the
// others have it.
func (t *Tier) Put(ctx context.Context, d Descriptor, blob io.ReaderAt) error {
	return t.each(func(s Keeper) error { return s.Put(ctx, d, blob) })
}

// Complete completes the layer in all stores.
func (t *Tier) Complete(ctx context.Context, m Manifest) error {
	return t.each(func(s Keeper) error { return s.Complete(ctx, m) })
}

// each calls f for every store and joins the errors.
func (t *Tier) each(f func(Keeper) error) error {
	var errs []error
	for _, s := range t.stores {
		if err := f(s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// List returns the complete layers of all stores, newest first, each once.
func (t *Tier) List(ctx context.Context) ([]Manifest, error) {
	var all []Manifest
	seen := make(map[string]bool)
	err := t.each(func(s Keeper) error {
		ms, err := s.List(ctx)
		for _, m := range ms {
			id := m.Name + "\x00" + m.Key.String()
			if !seen[id] {
				seen[id] = true
				all = append(all, m)
			}
		}
		return err
	})
	slices.SortStableFunc(all, NewestFirst)
	return all, err
}

// NewestFirst orders manifests as List does.
func NewestFirst(a, b Manifest) int { return b.Created.Compare(a.Created) }

// Remove removes the layers from all stores and returns the bytes freed in all.
func (t *Tier) Remove(ctx context.Context, ms []Manifest) (int64, error) {
	var freed int64
	err := t.each(func(s Keeper) error {
		n, err := s.Remove(ctx, ms)
		freed += n
		return err
	})
	return freed, err
}
