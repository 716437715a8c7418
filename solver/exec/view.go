package exec

import (
	"context"
	"slices"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/sandbox"
)

// before returns the items that make the root as a step finds it, all of them
// for nil, in the order in which they are applied.
func (b *builder) before(at *dag.Step) (items []*dag.Item) {
	var below map[*dag.Layer]bool
	if at != nil {
		below = chainOf(at.Layer)
	}
	for i := range b.sv.Plan.Layers {
		pl := &b.sv.Plan.Layers[i]
		if below != nil && !below[pl.Layer] {
			continue
		}
		for j := range pl.Items {
			it := &pl.Items[j]
			if it.Step == at {
				return items
			}
			if it.Step.ChangesRoot() {
				items = append(items, it)
			}
		}
	}
	return items
}

// chainOf returns a layer and all that it builds on.
func chainOf(l *dag.Layer) map[*dag.Layer]bool {
	chain := make(map[*dag.Layer]bool)
	for ; l != nil; l = l.On {
		chain[l] = true
	}
	return chain
}

// openView adds the nodes that make *view, on a view of the root as a step finds it.
// What is in the root already is seen there; other steps are applied to it, and made
// where no store has them.
func (f *flow) openView(b *builder, view *sandbox.Layered, at *dag.Step) error {
	var items []*dag.Item
	var stay map[key.Key]bool
	var revert []record.Event
	var scratch map[*dag.Step]bool
	f.download(b.before(at))
	return f.restore(func() []*dag.Item {
		items = b.before(at)
		stay, revert = b.lowerOf(items)
		scratch = b.sv.wantedScratch()
		if at != nil {
			b.sv.addScratch(scratch, at.Layer)
		}
		return b.absentFrom(items, stay, scratch)
	}, func(context.Context) error {
		items = slices.DeleteFunc(items, func(it *dag.Item) bool { return stay[it.Key] && !scratch[it.Step] })
		f.plan(func(ctx context.Context) (err error) {
			if *view, err = b.openReverted(ctx, revert); err == nil {
				f.sequence(items, func(ctx context.Context, it *dag.Item) (outcome, error) {
					return b.stepIn(ctx, *view, it, stay[it.Key])
				}, nil)
			}
			return err
		})
		return nil
	})
}

// stepIn runs a step in a view, or applies it there. lower says that the root has it.
func (b *builder) stepIn(ctx context.Context, view sandbox.Layered, it *dag.Item, lower bool) (outcome, error) {
	if err := b.enterLayer(ctx, view, it.Step.Layer); err != nil {
		return outcome{}, err
	}
	if it.State != dag.ToRun || !looksAtRoot(it.Step) {
		out, err := b.makeOrCheck(ctx, it)
		if err == nil {
			err = b.applyToView(ctx, view, it.Step, lower)
		}
		return out, err
	}
	out, err := b.step(ctx, it.Step, func(ctx context.Context, s *dag.Step, pack func(snapshot.Changes) error) error {
		return b.look(ctx, view, s, pack)
	})
	// In one view with layers that its own does not build on, the result is no other
	// machine's.
	out.store = out.store && b.buildsOnAll(it.Step.Layer)
	return out, err
}

// enterLayer has a view show the scratch that the steps of a layer see, and no other.
func (b *builder) enterLayer(ctx context.Context, view sandbox.Layered, l *dag.Layer) error {
	from := b.viewOf
	b.viewOf = l
	if from == nil || slices.Contains(scratchLayers(l), from) {
		return nil
	}
	if err := view.ClearScratch(ctx); err != nil {
		return err
	}
	for i := range b.sv.Plan.Layers {
		pl := &b.sv.Plan.Layers[i]
		if pl.Layer == l || !slices.Contains(scratchLayers(l), pl.Layer) {
			continue
		}
		for _, it := range pl.Items {
			if bl := b.blob(it.Step); bl != nil {
				if err := view.ApplyScratch(ctx, bl.reader()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// lowerOf divides the log of the root into its beginning, as far as that is the
// beginning of the items, and the rest, which a view must not show.
func (b *builder) lowerOf(items []*dag.Item) (stay map[key.Key]bool, revert []record.Event) {
	stay = make(map[key.Key]bool)
	for i, ev := range b.sv.State.Log {
		if i >= len(items) || items[i].Key != ev.Key || items[i].State != dag.Present {
			return stay, b.sv.State.Log[i:]
		}
		stay[ev.Key] = true
	}
	return stay, nil
}

// absentFrom returns the items whose snapshots are applied to a view, and are
// not on this machine yet.
func (b *builder) absentFrom(items []*dag.Item, stay map[key.Key]bool, scratch map[*dag.Step]bool) (absent []*dag.Item) {
	for _, it := range items {
		if (!stay[it.Key] || scratch[it.Step]) && it.State != dag.ToRun && !b.has(it.Step) {
			absent = append(absent, it)
		}
	}
	return absent
}
