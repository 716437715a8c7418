package lookup

import (
	"context"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/survey"
)

// A walk goes along the chains of a graph, as far as it is known what each step made: that
// gives the second key of the next one, which gives what that one made.
type walk struct {
	*Finder
	keys    *dag.Keys
	present map[*dag.Step]bool

	mu     sync.Mutex
	found  map[key.Key]cache.Found // by the first key of a step
	others map[key.Key]cache.Found // what stores have said of layers beside, by its own key

	refused map[*dag.Step]bool // what is under their first key is of no use: it is built again, and takes its place
}

// A place is how far the walk has come in a layer.
type place struct {
	layer *dag.Layer
	chain dag.Chain
	next  int     // in layer.Steps
	want  key.Key // the second key of that step, which is to be asked for
	ended bool    // it is not known what the next step makes, or there is none
}

// byContent looks for what was not found by the first keys. The stores are asked for the next
// step of all layers at the same time.
func (w *walk) byContent(ctx context.Context, g *dag.Graph) error {
	if !slices.ContainsFunc(g.Steps(), func(s *dag.Step) bool { return w.made(s) == dag.Made{} && s.ChangesRoot() }) {
		return nil
	}
	at := make(map[*dag.Layer]*place, len(g.Layers))
	for {
		var asking []*place
		for _, l := range g.Layers {
			p := at[l]
			if p == nil {
				p = &place{layer: l, chain: w.keys.Begin()}
				if l.On != nil && !l.Ordered {
					on := at[l.On] // before this one
					if on == nil || !on.ended {
						continue
					}
					if p.chain = on.chain; on.next < len(l.On.Steps) {
						p.chain = dag.Chain{}
					}
				}
				at[l] = p
			}
			if w.advance(p); !p.ended {
				asking = append(asking, p)
			}
		}
		if len(asking) == 0 {
			return nil
		}
		eg, gctx := errgroup.WithContext(ctx)
		eg.SetLimit(w.opt.Jobs)
		for _, p := range asking {
			eg.Go(func() error {
				found, err := w.ask(gctx, w.keys, p.layer, []key.Key{p.want})
				w.mu.Lock()
				defer w.mu.Unlock()
				for k, f := range found {
					w.others[k] = f
				}
				_, ok := w.others[p.want]
				p.ended = !ok
				return err
			})
		}
		if err := eg.Wait(); err != nil {
			return err
		}
	}
}

// advance goes on until a store has to be asked, or nothing more is known.
func (w *walk) advance(p *place) {
	for ; !p.ended && p.next < len(p.layer.Steps); p.next++ {
		s := p.layer.Steps[p.next]
		m := w.made(s)
		if m == (dag.Made{}) && s.ChangesRoot() {
			_, found := w.found[w.keys.Step[s]]
			p.want = w.keys.Cutoff(s, p.chain)
			if w.present[s] || found || w.refused[s] || p.want.IsZero() || w.opt.Unstored(p.layer) {
				break
			}
			f, ok := w.others[p.want]
			if !ok {
				return
			}
			if f.Key != p.want || f.Cutoff != p.want || !w.usable(s, w.keys, f) {
				break
			}
			w.found[w.keys.Step[s]] = f
			w.note(w.keys.Step[s], f)
			m = dag.Made{DiffID: f.DiffID}
		}
		p.chain = w.keys.After(s, p.chain, m)
	}
	p.ended = true
}

// made returns what a step makes that is in the root, or that a store has.
func (w *walk) made(s *dag.Step) dag.Made {
	k := w.keys.Step[s]
	if w.present[s] {
		return survey.MadeOf(w.applied[k])
	}
	return dag.Made{DiffID: w.found[k].DiffID}
}

// note remembers by which key the snapshot of a step was found. A step that is withheld under
// one of its keys is so under the other.
func (x *Finder) note(k key.Key, f cache.Found) {
	x.mu.Lock()
	x.second[k] = f.Key
	x.mu.Unlock()
	x.opt.Withheld.Suspect(k, x.opt.Withheld.Has(f.Key))
}

// Learn notes what the layers that stores list say of second keys.
func (x *Finder) Learn(layers []cache.Manifest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range layers {
		for _, d := range m.Steps {
			if second, ok := d.Second(); ok {
				d = second
			}
			if k := d.Key; d.ByContent() && cache.Twin(d, x.listed[k]) == "" {
				x.listed[k] = append(x.listed[k], cache.Found{Descriptor: d, Store: m.Store})
			}
		}
	}
}

// ByContent yields the snapshots that the stores have of a step by its second key: those of
// layers that are known, else the first one, and all others after it. After a step of a chain
// that has none, nothing is asked for those after it: what they were built on is new.
func (x *Finder) ByContent(ctx context.Context, keys *dag.Keys, s *dag.Step, second key.Key) iter.Seq[cache.Found] {
	return func(yield func(cache.Found) bool) {
		if x.opt.Tier == nil || x.opt.Unstored(s.Layer) || x.misses(s.Layer) {
			return
		}
		any := false
		each := func(list []cache.Found) bool {
			for _, f := range list {
				if f.Key != second || f.Cutoff != second || !x.usable(s, keys, f) {
					continue
				}
				any = true
				x.note(keys.Step[s], f)
				if !yield(f) {
					return false
				}
			}
			return true
		}
		x.mu.Lock()
		known := slices.Clone(x.listed[second])
		x.mu.Unlock()
		if !each(known) {
			return
		}
		if found, err := x.ask(ctx, keys, s.Layer, []key.Key{second}); err != nil || !each([]cache.Found{found[second]}) {
			return
		}
		if !any {
			x.mu.Lock()
			x.missed[s.Layer] = true
			x.mu.Unlock()
			return
		}
		answers, _ := x.Variants(ctx, keys, s.Layer, []*dag.Step{s}) // an error is ctx's
		each(answers[keys.Step[s]])
	}
}

// misses reports whether nothing was found of a step of a chain that ends with a layer.
func (x *Finder) misses(l *dag.Layer) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for ; l != nil; l = l.On {
		if x.missed[l] {
			return true
		}
		if l.Ordered {
			break
		}
	}
	return false
}
