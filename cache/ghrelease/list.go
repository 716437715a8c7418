package ghrelease

import (
	"cmp"
	"context"
	"slices"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/order"
)

// List returns the layers that are whole, newest first. One that refers to a
// step that is gone is not whole any more.
func (s *Store) List(ctx context.Context) ([]cache.Manifest, error) {
	if err := s.list(ctx); err != nil {
		return nil, err
	}
	var all, beside []cache.Manifest
	for _, h := range s.all() {
		switch m, ok := s.manifest(h); {
		case !ok || !h.whole():
		case h.Layer.Beside:
			beside = append(beside, m)
		default:
			all = append(all, m)
		}
	}
	order.Stable(all, cache.NewestFirst)
	order.Stable(beside, cache.NewestFirst)
	return newestOfEach(append(all, beside...)), nil
}

// Interrupted returns what is stored of layers that are not whole: the steps that
// arrived of each.
func (s *Store) Interrupted(ctx context.Context) ([]cache.Manifest, error) {
	if err := s.list(ctx); err != nil {
		return nil, err
	}
	var all []cache.Manifest
	for _, h := range s.all() {
		if !h.Draft {
			continue
		}
		m := cache.Manifest{Name: h.Name, Created: h.Created}
		for _, st := range h.inOrder() {
			if h.has(st) {
				m.Steps, m.Key = append(m.Steps, st.Descriptor), st.Key
			}
		}
		if len(m.Steps) > 0 {
			all = append(all, m)
		}
	}
	order.Stable(all, cache.NewestFirst)
	return all, nil
}

// newestOfEach orders manifests and leaves out those that follow one of the same layer.
func newestOfEach(all []cache.Manifest) []cache.Manifest {
	seen := make(map[string]bool)
	all = slices.DeleteFunc(all, func(m cache.Manifest) bool {
		id := m.Name + " " + m.Key.String()
		defer func() { seen[id] = true }()
		return seen[id]
	})
	order.Stable(all, cache.NewestFirst)
	return all
}

// all returns the releases that are known, oldest first.
func (s *Store) all() []*held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*held
	for _, h := range s.releases {
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b *held) int {
		return cmp.Or(a.Release.Created.Compare(b.Release.Created), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// manifest returns a release's layer; false if a step of it is nowhere.
func (s *Store) manifest(h *held) (cache.Manifest, bool) {
	if h.Layer == nil {
		return cache.Manifest{}, false
	}
	m := cache.Manifest{Version: h.Layer.Version, Name: h.Layer.Name, Key: h.Layer.Key, Platform: h.Layer.Platform, Project: h.Layer.Project, From: h.Layer.From, Created: h.Layer.Created, LeftOut: h.Layer.LeftOut}
	for _, k := range h.Layer.Keys {
		st := h.Steps[k]
		if st == nil || !s.anywhere(st, h) {
			return m, false
		}
		m.Steps = append(m.Steps, st.Descriptor)
	}
	return m, true
}

// anywhere reports whether the release that a step says to be in, h for one
// that says nothing, has it.
func (s *Store) anywhere(st *step, h *held) bool {
	if st.Tag == "" || st.Tag == h.Tag {
		return h.has(st)
	}
	return s.byTag(st.Tag, st) != nil
}

// byTag returns the published release of a tag that has the step.
func (s *Store) byTag(tag string, st *step) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.releases {
		if h.Tag == tag && !h.Draft && h.has(st) {
			return h
		}
	}
	return nil
}
