package survey

import (
	"slices"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/record"
)

// A LayerView is the view in which a layer's steps run, or are applied to a
// view of the root for those of the layers that build on it.
type LayerView struct {
	Layer  *dag.Layer
	Items  []*dag.Item // what takes place in it
	From   *LayerView  // this one begins as that one; nil: the root, without what is reverted
	Shared bool        // it is From's view itself: this layer is its only dependent
	Clear  bool        // it begins without From's scratch: its layer is only composed after that

	// Of a view that begins as the root: the applies that are reverted in
	// it, the last ones of the log. A step must not see what a later layer, or
	// what stood in its place before, has made: it would capture too little.
	Revert []record.Event
	Lower  map[key.Key]bool // the steps that stay, and so are in the view from the beginning

	dependents int // how many views begin as this one ends
}

// Views returns the views of the layers that need one, in composition order: of those
// with a step to make that looks at the root, and of those that they build on as far as
// they are not in it.
func (sv *Survey) Views(toMake func(*dag.Item) bool) (views []*LayerView) {
	runs := func(it *dag.Item) bool { return it.Step.LooksAtRoot() && toMake(it) }
	need := make(map[*dag.Layer]bool)
	for i := range sv.Plan.Layers {
		pl := &sv.Plan.Layers[i]
		for j := range pl.Items {
			if runs(&pl.Items[j]) {
				for l := pl.Layer; l != nil; l = l.On {
					need[l] = true
				}
				break
			}
		}
	}
	of := make(map[*dag.Layer]*LayerView)
	scratch := sv.WantedScratch(false)
	for _, l := range sv.Plan.Graph.Layers {
		if !need[l] {
			continue
		}
		lv := &LayerView{Layer: l}
		ordered := l.Ordered
		for on := l.On; on != nil && lv.From == nil; on = on.On {
			lv.From, lv.Clear = of[on], ordered
			ordered = ordered || on.Ordered
		}
		if lv.From != nil {
			lv.Lower = lv.From.Lower
		} else {
			lv.Lower, lv.Revert = sv.Lower(sv.items(l, nil))
		}
		for _, s := range l.Steps {
			if it := sv.Plan.Item(s); s.ChangesRoot() && (!lv.Lower[it.Key] || scratch[s]) {
				lv.Items = append(lv.Items, it)
			}
		}
		if len(lv.Items) == 0 {
			continue // it is in the root as it should be seen
		}
		if lv.From != nil {
			lv.From.dependents++
		}
		of[l] = lv
		views = append(views, lv)
	}
	for _, lv := range views {
		lv.Shared = lv.From != nil && lv.From.dependents == 1
		if lv.dependents == 0 { // nobody sees what follows the last one
			for len(lv.Items) > 0 && !runs(lv.Items[len(lv.Items)-1]) {
				lv.Items = lv.Items[:len(lv.Items)-1]
			}
		}
	}
	return views
}

// Lower divides the log of the root into its beginning, as far as that is the
// beginning of the items, and the rest, which a view must not show.
func (sv *Survey) Lower(items []*dag.Item) (stay map[key.Key]bool, revert []record.Event) {
	stay = make(map[key.Key]bool)
	for i, ev := range sv.State.Log {
		if i >= len(items) || items[i].Key != ev.Key || items[i].State != dag.Present {
			return stay, sv.State.Log[i:]
		}
		stay[ev.Key] = true
	}
	return stay, nil
}

// AddNames adds the steps that are present, and that one builds on which is not, and which
// is placed, or checked, by what it finds, where the root does not show what they made:
// steps of other layers were applied before or after them. Their snapshots have it.
func (sv *Survey) AddNames(wanted map[*dag.Step]bool) {
	for i := range sv.Plan.Layers {
		pl := &sv.Plan.Layers[i]
		j := len(pl.Items) - 1
		for ; j >= 0; j-- {
			if it := &pl.Items[j]; sv.ChecksLate(it) || it.State != dag.Present && it.Step.IsPlaced() {
				break
			}
		}
		if j < 0 {
			continue
		}
		items := sv.Before(pl.Items[j].Step)
		stay, _ := sv.Lower(items)
		for _, it := range items {
			if it.State == dag.Present && !stay[it.Key] {
				wanted[it.Step] = true
			}
		}
	}
}

// Before returns the items that make the root as a step finds it, all of them
// for nil, in the order in which they are applied.
func (sv *Survey) Before(at *dag.Step) []*dag.Item {
	if at == nil {
		return sv.items(nil, nil)
	}
	return sv.items(at.Layer, at)
}

// items returns the items that change the root, of a layer and all that it builds on
// (nil: of all layers), up to a step (nil: to the end).
func (sv *Survey) items(of *dag.Layer, end *dag.Step) (items []*dag.Item) {
	in := below(of)
	for i := range sv.Plan.Layers {
		pl := &sv.Plan.Layers[i]
		if of != nil && !in[pl.Layer] {
			continue
		}
		for j := range pl.Items {
			it := &pl.Items[j]
			if end != nil && it.Step == end {
				return items
			}
			if it.Step.ChangesRoot() {
				items = append(items, it)
			}
		}
	}
	return items
}

// below returns a layer and all that it builds on.
func below(l *dag.Layer) map[*dag.Layer]bool {
	chain := make(map[*dag.Layer]bool)
	for ; l != nil; l = l.On {
		chain[l] = true
	}
	return chain
}

// BuildsOnAll reports whether a layer builds on all layers that are composed before it.
func (sv *Survey) BuildsOnAll(at *dag.Layer) bool {
	in := below(at)
	for i := range sv.Plan.Layers {
		switch l := sv.Plan.Layers[i].Layer; {
		case l == at:
			return true
		case !in[l]:
			return false
		}
	}
	return false
}

// Runs reports whether a step of a plan that looks at the root is to run.
func Runs(p *dag.Plan) bool {
	return slices.ContainsFunc(p.Layers, func(pl dag.PlannedLayer) bool { return RunsIn(&pl) })
}

// RunsIn reports whether one of a layer is.
func RunsIn(pl *dag.PlannedLayer) bool {
	return slices.ContainsFunc(pl.Items, func(it dag.Item) bool { return it.State == dag.ToRun && it.Step.LooksAtRoot() })
}
