package survey

import (
	"slices"

	"github.com/clayer/clayer/solver/internal/record"
)

// Remaining is what stays of a state.
type Remaining struct {
	Layers []record.LayerKeys
	Env    []record.Var
	Events int // the first of the log
}

// Names returns the names of the layers.
func (r *Remaining) Names() (names []string) {
	for _, l := range r.Layers {
		names = append(names, l.Name)
	}
	return names
}

// After returns what stays when all after a layer is undone, and whether the state has that
// layer; "" is the layer before the first.
func After(state *record.State, to string) (rest Remaining, ok bool) {
	if to == "" {
		return rest, true
	}
	i := slices.IndexFunc(state.Layers, func(l record.Layer) bool { return l.Name == to })
	if i < 0 {
		return rest, false
	}
	steps := 0
	for _, l := range state.Layers[:i+1] {
		k := record.LayerKeys{Name: l.Name, Env: l.Env}
		for _, s := range l.Steps {
			k.Steps = append(k.Steps, s.Key)
			if s.Digest != "" {
				steps++
			}
		}
		rest.Layers = append(rest.Layers, k)
	}
	rest.Events, rest.Env = min(steps, len(state.Log)), state.Layers[i].Env
	return rest, true
}
