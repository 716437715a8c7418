package exec

import (
	"context"
	"slices"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/exec/internal/flow"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/sandbox"
)

// openView adds the nodes that make *view, on a view of the root as a step finds it.
// What is in the root already is seen there; other steps are applied to it, and made
// where no store has them.
func (b *builder) openView(f *flow.Flow, view *sandbox.Layered, at *dag.Step) error {
	var items []*dag.Item
	var stay map[key.Key]bool
	var revert []record.Event
	var scratch map[*dag.Step]bool
	needed := func() []*dag.Item {
		items = b.sv.Before(at)
		stay, revert = b.sv.Lower(items)
		scratch = b.sv.WantedScratch(true)
		if at != nil {
			b.sv.AddScratch(scratch, at.Layer)
		}
		return b.absentFrom(items, stay, scratch)
	}
	begin := func(ctx context.Context) (_ []*dag.Item, err error) {
		*view, err = b.openReverted(ctx, revert)
		return slices.DeleteFunc(items, func(it *dag.Item) bool { return stay[it.Key] && !scratch[it.Step] }), err
	}
	return f.Sequence(b.sv.Before(at), needed, begin, func(ctx context.Context, it *dag.Item) (flow.Outcome, error) {
		return b.stepIn(ctx, *view, it, stay[it.Key])
	})
}

// stepIn runs a step in a view, or applies it there. lower says that the root has it.
func (b *builder) stepIn(ctx context.Context, view sandbox.Layered, it *dag.Item, lower bool) (flow.Outcome, error) {
	if err := b.enterLayer(ctx, view, it.Step.Layer); err != nil {
		return flow.Outcome{}, err
	}
	if it.State != dag.ToRun || !it.Step.LooksAtRoot() || b.reuse(ctx, it.Step) {
		out, err := b.makeOrCheck(ctx, it)
		if err == nil {
			err = b.applyToView(ctx, view, it.Step, lower)
		}
		return out, err
	}
	out, err := b.step(ctx, it.Step, func(ctx context.Context, s *dag.Step, pack packer) error {
		return b.lookIn(ctx, view, s, pack)
	})
	// In one view with layers that its own does not build on, the result is no other
	// machine's.
	out.Store = out.Store && b.sv.BuildsOnAll(it.Step.Layer)
	return out, err
}

// enterLayer has a view show the scratch that the steps of a layer see, and no other.
func (b *builder) enterLayer(ctx context.Context, view sandbox.Layered, l *dag.Layer) error {
	from := b.viewOf
	b.viewOf = l
	if from == nil || survey.SeesScratchOf(l, from) {
		return nil
	}
	if err := view.ClearScratch(ctx); err != nil {
		return err
	}
	for i := range b.sv.Plan.Layers {
		pl := &b.sv.Plan.Layers[i]
		if pl.Layer == l || !survey.SeesScratchOf(l, pl.Layer) {
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

// absentFrom returns the items whose snapshots are applied to a view, and are
// not on this machine yet.
func (b *builder) absentFrom(items []*dag.Item, stay map[key.Key]bool, scratch map[*dag.Step]bool) (absent []*dag.Item) {
	for _, it := range items {
		if (!stay[it.Key] || scratch[it.Step]) && it.State != dag.ToRun && !b.Has(it.Step) {
			absent = append(absent, it)
		}
	}
	return absent
}
