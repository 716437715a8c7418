package ghrelease

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/dag/key"
)

// abandoned is how old a step must be that no layer has, to be taken for one
// that no session resumes.
const abandoned = 14 * 24 * time.Hour

// Remove forgets layers. A release goes when no other layer refers to it; else
// the files that none needs go. What interrupted sessions left goes when it is
// two weeks old. An immutable release can only go whole: it stays while
// another layer needs a part of it, which is reported.
func (s *Store) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	done, err := s.write(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	if err := s.list(ctx); err != nil {
		return 0, err
	}
	removed := make(map[string]bool)
	for _, m := range ms {
		removed[m.Name+" "+m.Key.String()] = true
	}
	defer s.forgetAsked()
	goes := func(h *held) bool { return h.Layer != nil && removed[h.Layer.Name+" "+h.Layer.Key.String()] }
	var freed int64
	for _, h := range s.all() {
		n, err := s.removeFrom(ctx, h, goes(h), s.needed(goes))
		freed += n
		if err != nil {
			return freed, fmt.Errorf("remove from %s: %w", h.Tag, err)
		}
	}
	return freed, nil
}

// needed returns what the layers that stay need, "tag key".
func (s *Store) needed(goes func(*held) bool) map[string]bool {
	need := make(map[string]bool)
	for _, h := range s.all() {
		if h.Layer == nil || goes(h) {
			continue
		}
		for _, k := range h.Layer.Keys {
			if st := h.Steps[k]; st != nil {
				need[cmp.Or(st.Tag, h.Tag)+" "+k.String()] = true
			}
		}
	}
	return need
}

// removeFrom removes from a release what nothing needs, and the release when
// nothing is left. layer says that its own layer goes.
func (s *Store) removeFrom(ctx context.Context, h *held, layer bool, need map[string]bool) (freed int64, err error) {
	var drop []key.Key
	needed := 0
	for k, st := range h.Steps {
		own := st.Tag == "" || st.Tag == h.Tag
		isLayers := h.Layer != nil && slices.Contains(h.Layer.Keys, k)
		switch {
		case own && need[h.Tag+" "+k.String()]:
			needed++
		case isLayers && !layer:
			needed++
		case isLayers || !own || s.old(h, st):
			drop = append(drop, k)
		default:
			needed++ // an interrupted session may take it up
		}
	}
	if !layer && len(drop) == 0 && (needed > 0 || h.Layer != nil || !s.oldRelease(h)) {
		return 0, nil
	}
	if needed == 0 && (layer || h.Layer == nil) {
		for _, a := range h.Assets {
			if a.Name != manifestName {
				freed += a.Size
			}
		}
		if err := s.gh.Delete(ctx, s.repo, &h.Release); err != nil {
			return 0, err
		}
		s.mu.Lock()
		delete(s.releases, h.ID)
		s.mu.Unlock()
		return freed, nil
	}
	rec := record{Name: h.Name, Layer: h.Layer, Steps: maps.Clone(h.Steps)}
	if layer {
		rec.Layer = nil
	}
	for _, k := range drop {
		delete(rec.Steps, k)
	}
	// The text first: it must not list what is gone.
	text, err := rec.body()
	if err != nil {
		return 0, err
	}
	if _, err := s.gh.Edit(ctx, s.repo, h.ID, github.Change{Body: &text}); err != nil {
		return 0, err
	}
	dropped := h.Steps
	s.change(h, func(h *held) { h.record, h.Body = rec, text })
	if h.Immutable {
		s.opt.Warn(h.Tag + " is an immutable release: its files stay while another layer needs one of them")
		return 0, nil
	}
	if layer {
		if err := s.removeAsset(ctx, h, h.asset(manifestName)); err != nil {
			return freed, err
		}
	}
	for _, k := range drop {
		for _, f := range dropped[k].files() {
			if a := h.asset(f.Name); a != nil {
				size := a.Size
				if err := s.removeAsset(ctx, h, a); err != nil {
					return freed, err
				}
				freed += size
			}
		}
	}
	return freed, nil
}

// old reports whether a step was uploaded long ago. GitHub's clock says when;
// ours, and it may be wrong, what time it is.
func (s *Store) old(h *held, st *step) bool {
	for _, f := range st.files() {
		if a := h.asset(f.Name); a != nil && s.gh.Now().Sub(a.Updated) < abandoned {
			return false
		}
	}
	return true
}

func (s *Store) oldRelease(h *held) bool {
	return s.gh.Now().Sub(h.Release.Created) > abandoned
}
