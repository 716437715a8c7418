package exec

import (
	"maps"
	"slices"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs"
)

// A Survey is all that is known before anything is changed.
type Survey struct {
	Plan     *dag.Plan
	State    *record.State
	Platform string
	Found    map[key.Key]cache.Found // what the stores have
	Answers  dag.Answers
	Changed  map[*dag.Step]bool // steps that change something: when they ran, or by a snapshot that was lost

	scratch map[key.Key]bool // see hasScratch

	// What a solve did beside the plan.
	Incomplete error              // what of an apply could not be done; the rest was
	Undone     int                // steps
	Preserved  []rootfs.Preserved // files that stay as the user has them
}

// lose removes keys from what the stores, or the root, have, and plans again.
func (sv *Survey) lose(keys ...key.Key) {
	for _, s := range sv.Plan.Graph.Steps() {
		if k := sv.Plan.Keys.Step[s]; slices.Contains(keys, k) && sv.Found[k].Entries > 0 {
			sv.Changed[s] = true
		}
	}
	for _, k := range keys {
		delete(sv.Found, k)
		delete(sv.Answers.Cached, k)
	}
	maps.DeleteFunc(sv.Answers.Present, func(s *dag.Step, _ bool) bool { return slices.Contains(keys, sv.Plan.Keys.Step[s]) })
	sv.Plan = dag.NewPlan(sv.Plan.Graph, sv.Plan.Keys, sv.Answers)
}

// change notes that steps changed something, which the plan had left open, and
// plans again: cached steps that follow them are to run.
func (sv *Survey) change(steps ...*dag.Step) {
	for _, s := range steps {
		sv.Changed[s] = true
	}
	sv.lose()
}

// UpToDate reports whether the root is what the plan says.
func (sv *Survey) UpToDate() bool {
	for _, pl := range sv.Plan.Layers {
		for _, it := range pl.Items {
			if it.State != dag.Present {
				return false
			}
		}
	}
	return sv.State.Platform != "" && !sv.State.Retry() && sv.sameEnv() && slices.EqualFunc(sv.State.Layers, sv.Layers(), func(l record.Layer, k rootfs.LayerKeys) bool {
		return l.Name == k.Name && slices.EqualFunc(l.Steps, k.Steps, func(a record.Applied, k key.Key) bool { return a.Key == k })
	})
}

// Env is the environment of the composition.
func (sv *Survey) Env() []frontend.Var { return sv.Plan.Graph.Env(len(sv.Plan.Layers)) }

// Layers returns the composition as the state records it.
func (sv *Survey) Layers() []rootfs.LayerKeys {
	var layers []rootfs.LayerKeys
	for i, pl := range sv.Plan.Layers {
		l := rootfs.LayerKeys{Name: pl.Layer.Name, Env: recordEnv(sv.Plan.Graph, i+1)}
		for _, it := range pl.Items {
			l.Steps = append(l.Steps, it.Key)
		}
		layers = append(layers, l)
	}
	return layers
}

// Present returns the steps that are in the root and stay as they are: those up
// to where the composition departs from what was applied (a step was edited, or
// removed, or layers changed places, or one was applied in part). What
// follows is under something else now, so it is undone, and applied again.
func Present(g *dag.Graph, keys *dag.Keys, state *record.State) map[*dag.Step]bool {
	there := make(map[*dag.Step]bool)
	for i, s := range order(g) {
		if i >= len(state.Log) || state.Log[i].Key != keys.Step[s] || state.Log[i].Incomplete {
			break
		}
		there[s] = true
	}
	env := make(map[key.Key]bool)
	for _, l := range state.Layers {
		for _, a := range l.Steps {
			if a.Digest == "" { // ENV
				env[a.Key] = true
			}
		}
	}
	for _, s := range g.Steps() {
		if env[keys.Step[s]] {
			there[s] = true
		}
	}
	return there
}

// Staying returns how many of the applies in the root are not undone.
func Staying(g *dag.Graph, present map[*dag.Step]bool) int {
	all := order(g)
	if i := slices.IndexFunc(all, func(s *dag.Step) bool { return !present[s] }); i >= 0 {
		return i
	}
	return len(all)
}

// order returns the steps that have a snapshot, in composition order.
func order(g *dag.Graph) []*dag.Step {
	return slices.DeleteFunc(g.Steps(), func(s *dag.Step) bool { return !s.ChangesRoot() })
}

// recordEnv is the environment of the first n layers as the state records it.
func recordEnv(g *dag.Graph, n int) []record.Var {
	var vars []record.Var
	for _, v := range g.Env(n) {
		vars = append(vars, record.Var(v))
	}
	return vars
}

// sameEnv reports whether the state has the plan's environment.
func (sv *Survey) sameEnv() bool {
	return slices.Equal(sv.State.Env, recordEnv(sv.Plan.Graph, len(sv.Plan.Graph.Layers)))
}
