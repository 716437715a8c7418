package exec

import (
	"sync"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/sandbox"
)

// A layerView is the view in which a layer's steps run, or are applied to a
// view of the root for those of the layers that build on it.
type layerView struct {
	mu         sync.Mutex // a view is used by one goroutine at a time
	view       sandbox.Layered
	from       *layerView // this one begins as that one; nil: the root, without what is reverted
	dependents int        // how many views begin as this one ends
	shared     bool       // it is from's view itself: this layer is its only dependent
	clear      bool       // it begins without from's scratch: its layer is only composed after that

	// Of a view that begins as the root: the applies that are reverted in
	// it, the last ones of the log. A step must not see what a later layer, or
	// what stood in its place before, has made: it would capture too little.
	revert []record.Event
	lower  map[key.Key]bool // the steps that stay, and so are in the view from the beginning
}

// planViews decides which layers need a view: those with a step that looks at
// the root, and those that they build on as far as they are not in it. order
// has them in composition order.
func (f *flow) planViews() {
	f.views = make(map[*dag.Layer]*layerView)
	need := make(map[*dag.Layer]bool)
	for i := range f.sv.Plan.Layers {
		pl := &f.sv.Plan.Layers[i]
		for _, it := range pl.Items {
			if f.toMake(&it) && looksAtRoot(it.Step) {
				for l := pl.Layer; l != nil; l = l.On {
					need[l] = true
				}
				break
			}
		}
	}
	f.order, f.scratch = nil, f.sv.wantedScratch()
	for _, l := range f.sv.Plan.Graph.Layers {
		if !need[l] {
			continue
		}
		lv := &layerView{}
		ordered := l.Ordered
		for on := l.On; on != nil && lv.from == nil; on = on.On {
			lv.from = f.views[on]
			lv.clear = ordered
			ordered = ordered || on.Ordered
		}
		if lv.from != nil {
			lv.lower = lv.from.lower
		} else {
			lv.lower, lv.revert = f.lower(l)
		}
		if len(f.absent(l, lv)) == 0 {
			continue // it is in the root as it should be seen
		}
		if lv.from != nil {
			lv.from.dependents++
		}
		f.views[l] = lv
		f.order = append(f.order, l)
	}
	for _, lv := range f.views {
		lv.shared = lv.from != nil && lv.from.dependents == 1
	}
}

// lower divides the log of the root into what a layer's steps should see there,
// as far as that is its beginning, and the rest.
func (f *flow) lower(l *dag.Layer) (stay map[key.Key]bool, revert []record.Event) {
	below := make(map[key.Key]bool)
	for ; l != nil; l = l.On {
		for _, s := range l.Steps {
			if it := f.sv.Plan.Item(s); it.State == dag.Present {
				below[it.Key] = true
			}
		}
	}
	stay = make(map[key.Key]bool)
	for i, ev := range f.sv.State.Log {
		if !below[ev.Key] {
			return stay, f.sv.State.Log[i:]
		}
		stay[ev.Key] = true
	}
	return stay, nil
}

// absent returns the items of a layer that change the root and are not in its
// view from the beginning, or whose scratch is not.
func (f *flow) absent(l *dag.Layer, lv *layerView) []*dag.Item {
	var items []*dag.Item
	for _, s := range l.Steps {
		if it := f.sv.Plan.Item(s); s.ChangesRoot() && (!lv.lower[it.Key] || f.scratch[s]) {
			items = append(items, it)
		}
	}
	return items
}

// inView returns the items that take place in the layer's view: all that are
// absent, up to the last that looks at the root if no other layer begins there.
func (f *flow) inView(l *dag.Layer) []*dag.Item {
	items := f.absent(l, f.views[l])
	if f.views[l].dependents > 0 {
		return items
	}
	for len(items) > 0 {
		if it := items[len(items)-1]; f.toMake(it) && looksAtRoot(it.Step) {
			break
		}
		items = items[:len(items)-1]
	}
	return items
}
