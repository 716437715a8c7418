package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/delta"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
)

// A Tier is several stores as one: near ones first. What a farther one had is
// stored in the nearer ones, and what is put goes to all. A store that fails is
// reported to warn and fails nothing that another one can do.
type Tier struct {
	stores []Store
	warn   func(store string, err error)
}

// Tiered makes a Tier. warn is called for each store that fails, possibly several
// times and from several goroutines.
func Tiered(warn func(store string, err error), stores ...Store) *Tier {
	return &Tier{stores, warn}
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

// Location returns the locations of the stores.
func (t *Tier) Location() string {
	var all []string
	for _, s := range t.stores {
		all = append(all, s.Location())
	}
	return strings.Join(all, ", ")
}

// Writable returns why nothing can be put into any of the stores.
func (t *Tier) Writable() error {
	var errs []error
	for _, s := range t.stores {
		if err := s.Writable(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name(), err))
		}
	}
	if len(errs) < len(t.stores) {
		return nil
	}
	return errors.Join(errs...)
}

// Removable returns an error, ErrReadOnly, for each of the stores from which nothing can ever
// be removed. Remove would remove from the others, and what is in these would still be listed.
func (t *Tier) Removable() error {
	return t.each(func(s Store) error {
		if err := s.Writable(); errors.Is(err, ErrReadOnly) {
			return err
		}
		return nil // worth trying
	})
}

// Find asks the nearest store first, and each farther one for what is missing
// still: what is near requires no network.
func (t *Tier) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]Found, error) {
	all := make(map[key.Key]Found)
	for _, s := range t.stores {
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
		for k, f := range m {
			if _, ok := all[k]; !ok {
				all[k] = f
			}
		}
	}
	return all, nil
}

// Variants returns what all stores have, the nearest first, each snapshot once.
func (t *Tier) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]Found, error) {
	all := make(map[key.Key][]Found)
	for _, s := range t.stores {
		m, err := s.Variants(ctx, tag, keys)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			t.warn(s.Name(), err)
		}
		for k, list := range m {
			for _, f := range list {
				id := f.Descriptor.VariantID()
				if slices.ContainsFunc(all[k], func(o Found) bool { return o.Digest == f.Digest && o.Descriptor.VariantID() == id }) {
					continue
				}
				all[k] = append(all[k], f)
			}
		}
	}
	return all, nil
}

// Fetch fetches the blob from the nearest store that has it, and verifies it. What a
// farther one had is stored in the nearer ones. An error is also ErrUnread where a store
// failed otherwise than by not having it.
func (t *Tier) Fetch(ctx context.Context, d Descriptor, b *Blob) error {
	why, unread := ErrNotCached, false
	for i, s := range t.stores {
		err := FetchNear(ctx, s, d, b, t.stores[:i])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			var corrupt *CorruptError
			missing := errors.Is(err, ErrNotCached)
			if !missing {
				unread = true
				t.warn(s.Name(), err)
			}
			switch {
			case errors.As(err, &corrupt):
				why = fmt.Errorf("%w; %s: %w", why, s.Name(), err)
			case !missing: // the warning says why
				why = &failure{why, s.Name(), err}
			}
			continue
		}
		for _, nearer := range t.stores[:i] {
			if err := nearer.Put(ctx, d, b); err != nil && ctx.Err() == nil && !errors.Is(err, ErrReadOnly) {
				t.warn(nearer.Name(), err)
			}
		}
		return nil
	}
	// A blob that no store could give is a miss, whatever the reasons.
	if unread {
		return &unreadError{why}
	}
	return why
}

// FetchNear is Fetch, and copies what it can from older snapshots of other stores.
func FetchNear(ctx context.Context, s Store, d Descriptor, b *Blob, others []Store) error {
	var sources []delta.Source
	for _, o := range others {
		if n, ok := o.(Nearby); ok && d.Frames != nil {
			sources = append(sources, n.Near(ctx, d)...)
		}
	}
	if near := delta.Find(d.Frames, d.Size, sources); near != nil {
		defer near.Close()
		b.near.Store(near)
		defer b.near.Store(nil)
	}
	return Fetch(ctx, s, d, b)
}

// A failure adds to an error that a store failed, whose error was reported.
type failure struct {
	before error
	store  string
	err    error
}

func (f *failure) Error() string   { return fmt.Sprintf("%v; store %s failed", f.before, f.store) }
func (f *failure) Unwrap() []error { return []error{f.before, f.err} }

// unreadError is ErrUnread too, which it does not say: the reasons do.
type unreadError struct{ error }

func (e *unreadError) Unwrap() []error { return []error{e.error, ErrUnread} }

// Put puts the blob into all stores, the nearest first. An error says that none
// has it.
func (t *Tier) Put(ctx context.Context, d Descriptor, b *Blob) error {
	return t.any(ctx, func(s Store) error { return s.Put(ctx, d, b) })
}

// Complete completes the layer in all stores. An error says that none has it.
func (t *Tier) Complete(ctx context.Context, m Manifest) error {
	return t.any(ctx, func(s Store) error { return s.Complete(ctx, m) })
}

// any calls f for every store, and warns of those that fail. A store that lacks
// a step has been reported before, and one that is only read need not be.
func (t *Tier) any(ctx context.Context, f func(Store) error) error {
	var errs []error
	for _, s := range t.stores {
		err := f(s)
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.Name(), err))
		if !errors.Is(err, ErrNotCached) && !errors.Is(err, ErrReadOnly) && ctx.Err() == nil {
			t.warn(s.Name(), err)
		}
	}
	if len(errs) < len(t.stores) {
		return nil
	}
	return errors.Join(errs...)
}

// each calls f for every store and joins the errors.
func (t *Tier) each(f func(Store) error) error {
	var errs []error
	for _, s := range t.stores {
		if err := f(s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// List returns the complete layers of all stores, newest first, each once. Stores that cannot
// list are left out, unless none can.
func (t *Tier) List(ctx context.Context) ([]Manifest, error) {
	var all []Manifest
	seen := make(map[string]bool)
	listed := false
	err := t.each(func(s Store) error {
		ms, err := s.List(ctx)
		if errors.Is(err, ErrUnlisted) {
			return nil
		}
		listed = true
		for _, m := range ms {
			id := m.Name + "\x00" + m.Key.String()
			if !seen[id] {
				seen[id], m.Store = true, s.Name()
				all = append(all, m)
			}
		}
		return err
	})
	if !listed && err == nil && len(t.stores) > 0 {
		err = fmt.Errorf("%s: %w", t.Name(), ErrUnlisted)
	}
	order.Stable(all, NewestFirst)
	return all, err
}

// Interrupted returns the layers that are not whole, of all stores.
func (t *Tier) Interrupted(ctx context.Context) ([]Manifest, error) {
	var all []Manifest
	err := t.each(func(s Store) error {
		ms, err := s.Interrupted(ctx)
		all = append(all, ms...)
		return err
	})
	order.Stable(all, NewestFirst)
	return all, err
}

// NewestFirst orders manifests as List does.
func NewestFirst(a, b Manifest) int { return b.Created.Compare(a.Created) }

// Remove removes the layers from all stores and returns the bytes freed in all.
func (t *Tier) Remove(ctx context.Context, ms []Manifest) (int64, error) {
	var freed int64
	err := t.each(func(s Store) error {
		n, err := s.Remove(ctx, ms)
		freed += n
		return err
	})
	return freed, err
}
