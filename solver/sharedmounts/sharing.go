package sharedmounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/report"
)

// A Sharing pulls the cache mounts of one solve before its RUNs use them, and pushes those
// that have changed in the end. Whatever fails is reported, and fails no solve. A nil Sharing
// does nothing. Its methods are safe for concurrent use.
type Sharing struct {
	mounts Mounts
	stores []cache.Store
	push   bool
	report *report.Reporter

	mu   sync.Mutex
	used map[string]chan struct{} // by id; closed when the mount is pulled
}

// NewSharing returns the sharing of a solve, with the cache directory; nil without one, or if
// it is not asked for.
func NewSharing(asked bool, cacheDir string, stores []cache.Store, push bool, r *report.Reporter) *Sharing {
	if !asked || cacheDir == "" {
		return nil
	}
	return &Sharing{mounts: Mounts{Cache: cacheDir}, stores: stores, push: push, report: r, used: make(map[string]chan struct{})}
}

// Fill pulls a mount if it is empty on this machine, once in a solve. It returns when the
// mount is ready, and fails only if ctx ends.
func (s *Sharing) Fill(ctx context.Context, id string) error {
	if s == nil {
		return nil
	}
	if len(s.stores) == 0 {
		s.report.WarnOnce("cache mounts are not shared: no store is named, or none can be used")
		return nil
	}
	s.mu.Lock()
	filled := s.used[id]
	first := filled == nil
	if first {
		filled = make(chan struct{})
		s.used[id] = filled
		if s.mounts.Platform == "" {
			s.mounts.Platform = Platform(ctx)
		}
	}
	s.mu.Unlock()
	if !first {
		<-filled
		return context.Cause(ctx)
	}
	defer close(filled)
	s.pull(ctx, id)
	return context.Cause(ctx)
}

func (s *Sharing) pull(ctx context.Context, id string) {
	if empty, err := s.mounts.IsEmpty(id); err != nil || !empty {
		return // the RUN reports what is wrong
	}
	var usable []cache.Store
	for _, st := range s.stores {
		if !s.report.Failed(st.Name()) {
			usable = append(usable, st)
		}
	}
	from, d, err := s.mounts.Find(ctx, usable, id, func(st cache.Store, err error) { s.report.StoreFailed(st.Name(), err) })
	if err != nil {
		return
	}
	err = s.mounts.Pull(ctx, from, id, d, true)
	switch {
	case err == nil:
		s.report.Emit(report.Event{Kind: report.Pulled, Store: from.Name(), Text: "cache mount " + id, Bytes: d.Size})
	case ctx.Err() != nil || errors.Is(err, ErrInUse) || errors.Is(err, cache.ErrNotCached):
	default:
		s.report.WarnError(fmt.Errorf("cache mount %s is not pulled from %s: %w", id, from.Name(), err))
	}
}

// Push puts the mounts that RUNs have used into the stores that are not known to have what is
// in them by now.
func (s *Sharing) Push(ctx context.Context) {
	if s == nil || !s.push {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(s.used)) {
		if err := s.pushOne(ctx, id); err != nil && ctx.Err() == nil && !errors.Is(err, ErrInUse) && !errors.Is(err, ErrEmpty) {
			s.report.WarnError(fmt.Errorf("cache mount %s is not pushed: %w", id, err))
		}
	}
}

func (s *Sharing) pushOne(ctx context.Context, id string) error {
	var lacking []cache.Store
	p, err := s.mounts.Pack(ctx, id, func(stamp string) bool {
		for _, st := range s.stores {
			if !s.report.Failed(st.Name()) && !errors.Is(st.Writable(), cache.ErrReadOnly) && !s.mounts.Known(id, st.Location(), stamp) {
				lacking = append(lacking, st)
			}
		}
		return len(lacking) > 0
	})
	if err != nil || p == nil {
		return err
	}
	defer p.Close()
	for _, st := range lacking {
		_, err := p.Push(ctx, st, func() {
			text := fmt.Sprintf("cache mount %s, %s", id, sizes.Format(p.Size()))
			s.report.Emit(report.Event{Kind: report.Pushing, Store: st.Name(), Text: text, Bytes: p.Size()})
		})
		if err != nil && ctx.Err() == nil && !errors.Is(err, cache.ErrReadOnly) {
			s.report.StoreFailed(st.Name(), fmt.Errorf("cache mount %s: %w", id, err))
		}
	}
	return nil
}
