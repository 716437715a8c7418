package survey

import (
	"slices"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
)

// Unexplained reports whether a step of a plan is to run for a reason that an earlier
// solve of its layer may tell. A list of layers costs requests, of which GitHub has few
// for those without a token.
func Unexplained(p *dag.Plan) bool {
	return slices.ContainsFunc(p.Layers, func(pl dag.PlannedLayer) bool {
		return slices.ContainsFunc(pl.Items, func(it dag.Item) bool { return it.State == dag.ToRun && it.Why == dag.NotBuilt })
	})
}

// OldSteps returns all steps of a layer, in order.
func OldSteps(m cache.Manifest) []dag.Old {
	old := make([]dag.Old, 0, len(m.Steps)+len(m.LeftOut))
	for _, d := range m.Steps {
		old = append(old, dag.Old{Key: d.Key, Recoded: d.Version != key.Encoding, Record: d.Record, Took: d.Took, Changed: d.Entries > 0, Cutoff: !d.Cutoff.IsZero()})
	}
	for _, l := range m.LeftOut {
		at := min(max(0, l.Index), len(old)) // a store may say anything
		old = slices.Insert(old, at, dag.Old{Key: l.Key, Recoded: m.Version != key.Encoding, Record: l.Record, Took: l.Took, LeftOut: true})
	}
	return old
}

// StandsAlone reports whether neither a layer builds on l by FROM, nor l on one.
func StandsAlone(g *dag.Graph, l *dag.Layer) bool {
	if l.On != nil && !l.Ordered {
		return false
	}
	return !slices.ContainsFunc(g.Layers, func(x *dag.Layer) bool { return x.On == l && !x.Ordered })
}
