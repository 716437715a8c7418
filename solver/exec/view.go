package exec

import (
	"context"
	"errors"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/rootfs/record"
	"github.com/clayer/clayer/solver/sandbox"
)

// before returns the items that make the root as a step finds it, all of them
// for nil, in the order in which they are applied.
func (b *builder) before(at *dag.Step) (items []*dag.Item) {
	var below map[*dag.Layer]bool
	if at != nil {
		below = make(map[*dag.Layer]bool)
		for l := at.Layer; l != nil; l = l.On {
			below[l] = true
		}
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

// viewBefore returns a view of the root as a step finds it. What is in the root
// already is seen there; other steps are laid over it, and made where no store
// has them.
func (b *builder) viewBefore(ctx context.Context, at *dag.Step) (_ sandbox.Layered, err error) {
	var items []*dag.Item
	var stay map[key.Key]bool
	var revert []record.Event
	for {
		items = b.before(at)
		stay, revert = b.lowerOf(items)
		lost, err := b.restoreAll(ctx, b.absentFrom(items, stay))
		if err != nil {
			return nil, err
		}
		if len(lost) == 0 {
			break
		}
		b.lose(ctx, lost...)
	}
	b.prefetch(ctx, items)
	view, err := b.openReverted(ctx, revert)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, view.Close())
		}
	}()
	for _, it := range items {
		if stay[it.Key] {
			continue
		}
		it = b.sv.Plan.Item(it.Step) // it may be planned anew meanwhile
		if it.State == dag.ToRun && looksAtRoot(it.Step) {
			err = b.step(ctx, it.Step, func(ctx context.Context, s *dag.Step, pack func(snapshot.Changes) error) error {
				return b.look(ctx, view, s, pack)
			})
			if err != nil {
				return nil, err
			}
			b.reconsider()
			continue
		}
		if it.State == dag.ToRun {
			if err = b.step(ctx, it.Step, b.bring); err != nil {
				return nil, err
			}
		}
		if err = view.Apply(ctx, b.blobs[it.Step].reader(), b.placement(it.Step)); err != nil {
			return nil, b.failure(it.Step, misplaced(it.Step, err))
		}
	}
	return view, nil
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

// absentFrom returns the items whose snapshots are laid over a view, and are
// not there yet.
func (b *builder) absentFrom(items []*dag.Item, stay map[key.Key]bool) (absent []*dag.Item) {
	for _, it := range items {
		if !stay[it.Key] && it.State != dag.ToRun && b.blobs[it.Step] == nil {
			absent = append(absent, it)
		}
	}
	return absent
}
