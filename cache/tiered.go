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

// Find asks the nearest store first, and each farther one for what is missing
// still: what is near wants no network.
func (t *Tier) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]Descriptor, error) {
	all := make(map[key.Key]Descriptor)
	for i, s := range t.stores {
		missing := slices.DeleteFunc(slices.Clone(keys), func(k key.Key) bool {
			_, ok := all[k]
			return ok
		})
		if len(missing) == 0 {
			break
		}
		m, err := s.Find(ctx, tag, missing)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			t.warn(s.Name(), err)
		}
		t.mu.Lock()
		for k := range m {
			t.where[k] = i
		}
		t.mu.Unlock()
		maps.Copy(all, m)
	}
	return all, nil
}

// Open opens the blob in the nearest store that has it, verified; it is an
// *os.File. What a farther one had is first kept in the nearer ones.
func (t *Tier) Open(ctx context.Context, d Descriptor, offset int64) (io.ReadCloser, error) {
	why := ErrNotCached
	for i, s := range t.stores {
		f, err := OpenVerified(ctx, s, d, "")
		if ctx.Err() != nil {
			if err == nil {
				f.Close()
			}
			return nil, context.Cause(ctx)
		}
		if err != nil {
			var corrupt *CorruptError
			missing := errors.Is(err, ErrNotCached)
			if !missing {
				t.warn(s.Name(), err)
			}
			if !missing || errors.As(err, &corrupt) { // more to tell than that it is not there
				why = fmt.Errorf("%w; %s: %w", why, s.Name(), err)
			}
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
	return nil, why
}

func (t *Tier) keep(ctx context.Context, nearer []Keeper, d Descriptor, f *os.File) {
	for _, s := range nearer {
		if err := s.Put(ctx, d, &VerifiedFile{f}); err != nil {
			t.warn(s.Name(), err)
		}
	}
}

// Put puts the blob into all stores, the nearest first. An error says that none
// has it.
func (t *Tier) Put(ctx context.Context, d Descriptor, blob io.ReaderAt) error {
	return t.any(ctx, func(s Keeper) error { return s.Put(ctx, d, blob) })
}

// Complete completes the layer in all stores. An error says that none has it.
func (t *Tier) Complete(ctx context.Context, m Manifest) error {
	return t.any(ctx, func(s Keeper) error { return s.Complete(ctx, m) })
}

// any calls f for every store, and tells of those that fail. A store that lacks
// a step has been told of before.
func (t *Tier) any(ctx context.Context, f func(Keeper) error) error {
	var errs []error
	for _, s := range t.stores {
		err := f(s)
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.Name(), err))
		if !errors.Is(err, ErrNotCached) && ctx.Err() == nil {
			t.warn(s.Name(), err)
		}
	}
	if len(errs) < len(t.stores) {
		return nil
	}
	return errors.Join(errs...)
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

// Interrupted returns the layers that are not whole, of all stores that know of
// such.
func (t *Tier) Interrupted(ctx context.Context) ([]Manifest, error) {
	var all []Manifest
	err := t.each(func(s Keeper) error {
		i, ok := s.(Interrupted)
		if !ok {
			return nil
		}
		ms, err := i.Interrupted(ctx)
		all = append(all, ms...)
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
