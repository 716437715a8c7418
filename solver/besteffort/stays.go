package besteffort

import (
	"context"
	"slices"
	"time"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/internal/record"
)

// stays returns what is missing where nothing could be changed: the root has of each layer
// what it had before.
func (r *run) stays(ctx context.Context, why error) *solver.Shortfall {
	s := r.shortfall(ctx, nil, why)
	status, err := r.undoFailed(ctx)
	if s == nil || err != nil {
		return s
	}
	steps := r.stepKeys(ctx)
	s.Layers = slices.DeleteFunc(s.Layers, func(l solver.ShortLayer) bool {
		return appliedSteps(status, l.Name, steps[l.Name]) == len(steps[l.Name]) && len(steps[l.Name]) > 0
	})
	for i := range s.Layers {
		l := &s.Layers[i]
		l.Steps, l.As = appliedSteps(status, l.Name, steps[l.Name]), time.Time{}
		if is := lastOf(status, l.Name); is != nil {
			l.Key = is.Key
			l.As = r.madeBefore(l.Name, is.Key)
		}
	}
	return s
}

// undoFailed undoes what a RUN did in place that failed, as the next solve would, and returns
// what the root has.
func (r *run) undoFailed(ctx context.Context) (*solver.RootStatus, error) {
	status, err := solver.Status(r.opt)
	if err != nil || !status.State.Failed() {
		return status, err
	}
	to := ""
	if n := len(status.State.Layers); n > 0 {
		to = status.State.Layers[n-1].Name
	}
	if _, err := solver.Undo(ctx, r.opt, to); err != nil && r.opt.Report != nil {
		r.opt.Report.Warnf("what a RUN that failed has left stays until the next solve: %v", err)
	}
	return solver.Status(r.opt)
}

// madeBefore returns when a layer was made that is in the root since before the solve, with
// that as its last step; zero: it is none that was whole. What a solve leaves that fails in
// place is a part.
func (r *run) madeBefore(name string, last key.Key) (at time.Time) {
	if r.before == nil {
		return at
	}
	was := lastOf(r.before, name)
	if was == nil || was.Key != last {
		return at
	}
	if !r.before.Shortfall.Lacks(name) {
		return was.At
	}
	for _, l := range r.before.Shortfall.Layers {
		if l.Name == name {
			at = l.As
		}
	}
	return at
}

// lastOf returns the last step of a layer that is in the root; nil for none.
func lastOf(status *solver.RootStatus, name string) (last *record.Applied) {
	for _, l := range status.State.Layers {
		if n := len(l.Steps); l.Name == name && n > 0 {
			last = &l.Steps[n-1]
		}
	}
	return last
}

// appliedSteps returns how many of a layer's steps are in the root, from the first on.
func appliedSteps(status *solver.RootStatus, name string, steps []key.Key) (n int) {
	for _, l := range status.State.Layers {
		if l.Name != name {
			continue
		}
		has := make(map[key.Key]bool, len(l.Steps))
		for _, a := range l.Steps {
			has[a.Key] = true
		}
		for n < len(steps) && has[steps[n]] {
			n++
		}
	}
	return n
}

// stepKeys returns the keys of the steps that change the root, by layer, as far as they can
// be computed.
func (r *run) stepKeys(ctx context.Context) map[string][]key.Key {
	ctx, cancel := context.WithTimeout(ctx, hashTime)
	defer cancel()
	opt := r.opt
	opt.Stores = nil
	g, keys, err := solver.Hash(ctx, opt)
	if err != nil {
		return nil
	}
	all := make(map[string][]key.Key, len(g.Layers))
	for _, l := range g.Layers {
		for _, s := range l.Steps {
			if s.ChangesRoot() {
				all[l.Name] = append(all[l.Name], keys.Step[s])
			}
		}
	}
	return all
}
