// Package lookup asks the stores for the snapshots of steps: by their chain keys, and where
// the steps before one made the same in another way, by its second key.
package lookup

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/report"
)

// Options are what a Finder works with.
type Options struct {
	Tier     *cache.Tier // nil: there are no stores
	Report   *report.Reporter
	Jobs     int // layers that are asked for at a time
	Withheld *cache.Withheld
	Unstored func(*dag.Layer) bool // its steps are put into no store
}

// A Finder finds the snapshots of steps in the stores of a session. Its methods are safe for
// concurrent use.
type Finder struct {
	opt Options

	mu      sync.Mutex
	applied map[key.Key]record.Applied
	second  map[key.Key]key.Key       // by the first keys of those that were found by it
	listed  map[key.Key][]cache.Found // see Learn
	missed  map[*dag.Layer]bool       // see ByContent
}

// New returns a Finder that knows of no root.
func New(opt Options) *Finder {
	return &Finder{opt: opt, second: make(map[key.Key]key.Key), listed: make(map[key.Key][]cache.Found), missed: make(map[*dag.Layer]bool)}
}

// SetState says what the root has.
func (x *Finder) SetState(state *record.State) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.applied, x.second = make(map[key.Key]record.Applied), make(map[key.Key]key.Key)
	for _, l := range state.Layers {
		for _, a := range l.Steps {
			x.applied[a.Key] = a
			if a.Second {
				x.second[a.Key] = a.Cutoff
			}
		}
	}
}

// Find asks the stores for all keys of layers that are not completely present.
// A store that fails is a miss, which the store itself reports. What has no snapshot under
// its key is looked for by its second one, as far as it is known what the steps before made.
func (x *Finder) Find(ctx context.Context, g *dag.Graph, keys *dag.Keys, present map[*dag.Step]bool) (map[key.Key]cache.Found, error) {
	w := &walk{Finder: x, keys: keys, present: present, found: make(map[key.Key]cache.Found), others: make(map[key.Key]cache.Found), refused: make(map[*dag.Step]bool)}
	if x.opt.Tier == nil {
		return w.found, nil
	}
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(x.opt.Jobs)
	for _, l := range g.Layers {
		var want []key.Key
		steps := make(map[key.Key]*dag.Step)
		for _, s := range l.Steps {
			if k := keys.Step[s]; s.ChangesRoot() && !present[s] {
				want, steps[k] = append(want, k), s
			}
		}
		if len(want) == 0 {
			continue
		}
		eg.Go(func() error {
			found, err := x.ask(gctx, keys, l, want)
			w.mu.Lock()
			defer w.mu.Unlock()
			for k, d := range found {
				if s := steps[k]; s == nil {
					w.others[k] = d
				} else if x.usable(s, keys, d) {
					w.found[k] = d
				} else {
					w.refused[s] = true
				}
			}
			return err
		})
	}
	err := eg.Wait()
	if err == nil {
		err = w.byContent(ctx, g)
	}
	return w.found, err
}

// ask asks for keys of steps of a layer. A store may say more of that layer.
func (x *Finder) ask(ctx context.Context, keys *dag.Keys, l *dag.Layer, want []key.Key) (map[key.Key]cache.Found, error) {
	found, err := x.opt.Tier.Find(ctx, cache.Tag(l.Name, keys.Layer[l]), want)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		x.opt.Report.StoreFailed(x.opt.Tier.Name(), err)
		return nil, nil
	}
	return found, nil
}

// usable reports whether what a store has under a key of a step is of that step, and of a
// version that this program knows.
func (x *Finder) usable(s *dag.Step, keys *dag.Keys, d cache.Found) bool {
	if d.Version > cache.Version {
		x.opt.Report.WarnOnce("%s: what %s has was stored by a later version of clayer, so it is built again", s.Pos(), d.Store)
		return false
	}
	if len(d.Record) > 0 { // what is stored in little space has none
		other := keys.Record(s).Changed(d.Record) // a key has one record
		if d.ByContent() {
			other = keys.Differs(s, d.Record)
		}
		if len(other) > 0 {
			x.opt.Report.WarnOnce("%s: what %s has under its key is recorded of another step (%s), so it is built again", s.Pos(), d.Store, strings.Join(other, ", "))
			return false
		}
	}
	return d.Entries > 0 || !inventory.Installs(s) // some stores have such snapshots from before they were refused
}

// Variants returns all snapshots that the stores have of steps of one layer, by their first
// keys.
func (x *Finder) Variants(ctx context.Context, keys *dag.Keys, l *dag.Layer, steps []*dag.Step) (map[key.Key][]cache.Found, error) {
	all := make(map[key.Key][]cache.Found)
	if x.opt.Tier == nil || len(steps) == 0 {
		return all, nil
	}
	want := make([]key.Key, len(steps))
	for i, s := range steps {
		want[i] = x.KeyOf(keys.Step[s])
	}
	answers, err := x.opt.Tier.Variants(ctx, cache.Tag(l.Name, keys.Layer[l]), want)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		x.opt.Report.StoreFailed(x.opt.Tier.Name(), err)
	}
	for i, s := range steps {
		k := keys.Step[s]
		for _, f := range answers[want[i]] {
			if f.Key == want[i] && x.usable(s, keys, f) && len(all[k]) < maxCandidates {
				all[k] = append(all[k], f)
			}
		}
	}
	return all, nil
}

// maxCandidates bounds what is looked at of one step: each store may have some.
const maxCandidates = 4 * cache.MaxVariants

// KeyOf returns the key that stores have the snapshot of a step by, of its first key.
func (x *Finder) KeyOf(k key.Key) key.Key {
	x.mu.Lock()
	defer x.mu.Unlock()
	if second, ok := x.second[k]; ok {
		return second
	}
	return k
}
