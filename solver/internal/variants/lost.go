package variants

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/source"
)

// Lost are the snapshots that were to be restored, and were not. Its methods are safe for
// concurrent use, but for Choose.
type Lost struct {
	Made   func(*dag.Step) (d digest.Digest, made bool) // of the snapshots on this machine
	Forget func(*dag.Step)                              // the snapshot on this machine is of no use
	Ask    Asked
	All    bool // what is built is built again on purpose, and replaces what stores have

	mu      sync.Mutex
	useless map[key.Key]digest.Digest // those that others are to take the place of
	unmet   map[key.Key]string        // what the root lacks of what the others need
	tried   map[digest.Digest]bool    // these others
}

// An UnmetError says what of the needs of a snapshot a root lacks.
type UnmetError struct{ Lacks string }

func (e *UnmetError) Error() string { return "it " + e.Lacks }

// Note notes that the step of a key can't be restored from the chosen snapshot. It reports
// whether another one may do: the root lacks what this one needs.
func (l *Lost) Note(k key.Key, chosen cache.Found, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tried == nil {
		l.useless, l.tried = make(map[key.Key]digest.Digest), make(map[digest.Digest]bool)
	}
	var lacks *UnmetError
	if errors.As(err, &lacks) {
		if l.unmet == nil {
			l.unmet = make(map[key.Key]string)
		}
		l.unmet[k], l.tried[chosen.Digest] = lacks.Lacks, true
		return true
	}
	if useless(err) {
		l.useless[k] = chosen.Digest
	}
	return false
}

// useless reports whether an error says that a snapshot is gone, or is none of its step
// here, rather than that it could not be read now.
func useless(err error) bool {
	if errors.Is(err, cache.ErrUnread) || errors.Is(err, cache.ErrAborted) {
		return false
	}
	var unsafe *snapshot.UnsafeError
	var unexpected *source.UnexpectedError
	var fault *source.Fault
	return errors.Is(err, cache.ErrNotCached) || errors.As(err, &unsafe) || errors.As(err, &unexpected) || errors.As(err, &fault)
}

// IsGone reports whether an error says that a snapshot cannot be had, and not that it is none
// of its step here.
func IsGone(err error) bool { return errors.Is(err, cache.ErrNotCached) || !useless(err) }

// Replaced returns the snapshot that one of a step, which has run, takes the place of. Where
// that of a step before it in its chain gives way, what was built on that does so too: its
// needs do not say on which of the two, and they are restored together.
func (l *Lost) Replaced(sv *survey.Survey, s *dag.Step) digest.Digest {
	if l.All {
		return cache.AllVariants
	}
	k := sv.Plan.Keys.Step[s]
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.useless[k] == "" && slices.ContainsFunc(sv.Covered(s), func(it *dag.Item) bool { return l.useless[it.Key] != "" }) {
		return sv.Found[k].Digest
	}
	return l.useless[k]
}

// Choose chooses other snapshots for steps of which the root lacks what the chosen one
// needs, and for those that were built on that one. What these need is checked when they
// are applied. It returns the keys of the steps that are lost, of keys and of those, and
// what is to be said of them.
func (l *Lost) Choose(ctx context.Context, sv *survey.Survey, keys []key.Key) (lost []key.Key, warnings []error, err error) {
	l.mu.Lock()
	unmet := l.unmet
	l.unmet = nil
	l.mu.Unlock()
	lost = slices.DeleteFunc(slices.Clone(keys), func(k key.Key) bool { return unmet[k] != "" })
	if len(unmet) == 0 {
		return lost, nil, nil
	}
	ends := make(map[*dag.Layer]chainEnd)
	for i := range sv.Plan.Layers {
		pl := &sv.Plan.Layers[i]
		var end chainEnd
		if !pl.Layer.Ordered {
			end = ends[pl.Layer.On]
		}
		var all map[key.Key][]cache.Found
		for j := range pl.Items {
			it := &pl.Items[j]
			if it.State != dag.Cached {
				continue
			}
			why := unmet[it.Key]
			switch {
			case end == chainLost || slices.Contains(lost, it.Key):
				end = chainLost
				continue
			case why == "" && (end == chainSame || l.standsOn(sv, it.Step, sv.Found[it.Key])):
				continue
			}
			if all == nil {
				if all, err = l.Ask(ctx, sv.Plan.Keys, pl.Layer, cached(pl)); err != nil {
					return nil, nil, err
				}
			}
			l.Forget(it.Step)
			at := slices.IndexFunc(all[it.Key], func(f cache.Found) bool { return !l.tried[f.Digest] && l.standsOn(sv, it.Step, f) })
			if at < 0 {
				lost, end = append(lost, it.Key), chainLost
				if why != "" {
					warnings = append(warnings, fmt.Errorf("%s: cached, but %s, so it is built again", it.Step.Pos(), why))
				}
				continue
			}
			sv.Choose(it.Key, all[it.Key][at])
			end = chainChanged
		}
		ends[pl.Layer] = end
	}
	return lost, warnings, nil
}

// A chainEnd says what became of the snapshots of a chain.
type chainEnd uint8

const (
	chainSame    chainEnd = iota // they are the chosen ones
	chainChanged                 // others of some steps were chosen
	chainLost                    // what follows is to run
)

func cached(pl *dag.PlannedLayer) (steps []*dag.Step) {
	for i := range pl.Items {
		if it := &pl.Items[i]; it.State == dag.Cached {
			steps = append(steps, it.Step)
		}
	}
	return steps
}

// standsOn reports whether a snapshot was built on what a step is restored, or built, on.
func (l *Lost) standsOn(sv *survey.Survey, s *dag.Step, f cache.Found) bool {
	if f.ByContent() {
		return f.Key == sv.Plan.Keys.Cutoff(s, sv.Plan.Keys.Until(s, func(s *dag.Step) dag.Made { return sv.Made(s, sv.Plan.Keys) }))
	}
	if f.On == "" {
		return true
	}
	on := l.BuiltOn(sv, s)
	return on == "" || on == f.On
}

// BuiltOn returns the digest of the snapshot that a step is built on.
func (l *Lost) BuiltOn(sv *survey.Survey, s *dag.Step) digest.Digest {
	return survey.BuiltOn(s, func(before *dag.Step) digest.Digest {
		if d, made := l.Made(before); made {
			return d
		}
		return sv.Snapshot(before, sv.Plan.Keys)
	})
}

// Find asks for one of the snapshots of a step.
func (l *Lost) Find(ctx context.Context, sv *survey.Survey, s *dag.Step, has digest.Digest) (cache.Found, bool) {
	found, err := l.Ask(ctx, sv.Plan.Keys, s.Layer, []*dag.Step{s})
	list := found[sv.Plan.Keys.Step[s]]
	i := slices.IndexFunc(list, func(f cache.Found) bool { return f.Digest == has })
	if err != nil || i < 0 {
		return cache.Found{}, false
	}
	return list[i], true
}
