package git

import (
	"context"
	"errors"
	"slices"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/branch"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
)

// read returns what the branch has, as it was when this process first looked, or last
// changed it.
func (s *Store) read(ctx context.Context) (*index, error) {
	done, err := hold(ctx, s.reading)
	if err != nil {
		return nil, err
	}
	defer done()
	if x := s.seen(nil); x != nil {
		return x, nil
	}
	if err := s.refused.Reading(); err != nil {
		return nil, err
	}
	var x *index
	err = s.try(ctx, reading, func(ctx context.Context) error {
		r, err := s.open()
		if err != nil {
			return err
		}
		defer r.close()
		x, err = s.fetchIndex(ctx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.seen(x), nil
}

// fetchIndex fetches the last commit of the branch into a repository, and reads it.
func (s *Store) fetchIndex(ctx context.Context, r *repo) (*index, error) {
	commit, _, err := r.fetchTip(ctx, s.addr.Branch)
	if err != nil {
		return nil, err
	}
	return newIndex(ctx, r, commit, s.opt.Warn)
}

// seen returns what the branch has, and sets it if x is not nil.
func (s *Store) seen(x *index) *index {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x != nil {
		s.last = x
	}
	return s.last
}

// Find looks into the file of the layer, which is all of a whole hit, and of each step
// that it lacks. The first call fetches them all.
func (s *Store) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	x, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	found := make(map[key.Key]cache.Found, len(keys))
	if l, ok := x.Layer(branch.LayerPath(tag)); ok {
		for _, st := range l.Steps {
			found[st.Key] = cache.Found{Descriptor: st.Descriptor, Store: s.opt.Name}
		}
	}
	for _, k := range keys {
		if _, ok := found[k]; ok {
			continue
		}
		if st, ok := x.Step(k); ok {
			found[k] = cache.Found{Descriptor: st.Descriptor, Store: s.opt.Name}
		}
	}
	return found, nil
}

// List returns the complete layers, newest first.
func (s *Store) List(ctx context.Context) ([]cache.Manifest, error) {
	x, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	var list []cache.Manifest
	for _, l := range x.Layers() {
		list = append(list, l.AsManifest())
	}
	order.Stable(list, func(a, b cache.Manifest) int {
		if c := cache.NewestFirst(a, b); c != 0 {
			return c
		}
		return slices.Compare(a.Key[:], b.Key[:])
	})
	return list, nil
}

// Interrupted returns the steps that no layer has, by the name of the layer that they
// were made for.
func (s *Store) Interrupted(ctx context.Context) ([]cache.Manifest, error) {
	x, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	used := make(map[key.Key]bool)
	for _, l := range x.Layers() {
		for _, st := range l.Steps {
			used[st.Key] = true
		}
	}
	var list []cache.Manifest
	for _, st := range x.Steps() {
		if used[st.Key] || st.Path != x.Variants(st.Key)[0].Path {
			continue
		}
		i := slices.IndexFunc(list, func(m cache.Manifest) bool { return m.Name == st.Layer })
		if i < 0 {
			i, list = len(list), append(list, cache.Manifest{Name: st.Layer})
		}
		m := &list[i]
		m.Steps = append(m.Steps, st.Descriptor)
		m.Key, m.Created = st.Key, st.Created
	}
	return list, nil
}

// isGone reports whether an error says that the server has an object no longer.
func isGone(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.kind == gone
}
