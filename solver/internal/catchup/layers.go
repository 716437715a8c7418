package catchup

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/record"
)

// A Layer is one that is in the root.
type Layer struct {
	Manifest cache.Manifest
	Steps    map[key.Key]*dag.Step // those of the manifest
	From     map[key.Key]string    // the names of the stores where this solve found snapshots
}

// A Listing says which layers of a plan stores list, and what of them.
type Listing struct {
	Plan    *dag.Plan
	Project func() string // whose layers they are; nil: nobody knows

	Withheld *cache.Withheld
	Last     func(ctx context.Context, stage *frontend.File) (digest.Digest, error) // its last key
	IsStage  bool                                                                   // the plan is of a stage

	// Unlisted reports whether a layer is not whole, or is not known to work.
	Unlisted func(layer string) bool
}

// Lists adds to a manifest whose layer it is, and what it builds on. false: the layer is
// Unlisted.
func (l Listing) Lists(m *cache.Manifest) bool {
	if l.Project != nil {
		m.Project = l.Project()
	}
	for _, layer := range l.Plan.Graph.Layers {
		if layer.Name == m.Name && layer.On != nil && !layer.Ordered {
			m.From = l.Plan.Keys.Layer[layer.On]
		}
	}
	return !l.Unlisted(m.Name)
}

// Layers returns the layers of a composition that are in the root, without those that
// are put into no store, and those with a step of Applied.Differs. found is what the stores had.
func Layers(p *dag.Plan, state *record.State, found map[key.Key]cache.Found, unstored func(*dag.Layer) bool, list Listing) (layers []Layer) {
	for i := range p.Layers {
		pl := &p.Layers[i]
		at := slices.IndexFunc(state.Layers, func(l record.Layer) bool {
			return l.Name == pl.Layer.Name && len(l.Steps) > 0 && l.Steps[len(l.Steps)-1].Key == pl.Key
		})
		if at < 0 || unstored(pl.Layer) || slices.ContainsFunc(state.Layers[at].Steps, func(a record.Applied) bool { return a.Differs }) {
			continue
		}
		l := Layer{manifestOf(pl, state.Layers[at], state.Platform), make(map[key.Key]*dag.Step), make(map[key.Key]string)}
		second := make(map[key.Key]key.Key)
		for _, a := range state.Layers[at].Steps {
			if a.Second {
				second[a.Key] = a.Cutoff
			}
		}
		for _, it := range pl.Items {
			k := it.Key
			if other, ok := second[k]; ok {
				k = other
			}
			l.Steps[k] = it.Step
			if f, ok := found[it.Key]; ok && it.State == dag.Cached {
				l.From[k] = f.Store
			}
		}
		if list.Lists(&l.Manifest) && len(l.Manifest.Steps) > 0 {
			layers = append(layers, l)
		}
	}
	return layers
}

// manifestOf returns the manifest of a layer as the state of the root has it.
func manifestOf(pl *dag.PlannedLayer, l record.Layer, platform string) cache.Manifest {
	m := cache.Manifest{Version: cache.Version, Name: pl.Layer.Name, Key: pl.Key, Platform: platform}
	for _, a := range l.Steps {
		switch {
		case a.Digest == "": // ENV
		case a.LeftOut:
			m.LeftOut = append(m.LeftOut, cache.LeftOut{Key: a.Key, Index: len(m.Steps) + len(m.LeftOut), Record: a.Record, Text: a.Text, Took: a.Took})
		default:
			m.Steps = append(m.Steps, Descriptor(a, pl.Layer.Name))
			if a.At.After(m.Created) {
				m.Created = a.At
			}
		}
	}
	m.BoundFrames()
	return m
}

// Descriptor returns what stores have of a step that is in the root.
func Descriptor(a record.Applied, layer string) cache.Descriptor {
	k := a.Key
	if a.Second {
		k = a.Cutoff
	}
	return cache.Descriptor{
		Version: a.Encoding, Key: k, Cutoff: a.Cutoff, Layer: layer, Digest: a.Digest, Size: a.Size, CRC32C: a.CRC32C, DiffID: a.DiffID,
		Entries: a.Entries, Bytes: a.Bytes, Record: a.Record, Text: a.Text, Took: a.Took, Created: a.At, Needs: a.Needs, On: a.On, Frames: a.Frames,
	}
}
