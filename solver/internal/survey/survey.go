// Package survey is what is known before anything is changed, and what follows from it:
// which steps stay in the root, what a step sees there, and which views that takes. It
// is pure: it opens no file and asks nobody.
package survey

import (
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/record"
)

// A Survey is all that is known before anything is changed. A solve that finds it wrong
// corrects it, and plans again: see Lose and Change.
type Survey struct {
	Plan     *dag.Plan
	State    *record.State
	Platform string
	Found    map[key.Key]cache.Found // what the stores have
	Answers  dag.Answers
	Late     map[key.Key]bool   // those whose needs are checked again when the steps before them are applied
	Changed  map[*dag.Step]bool // steps that change something: when they ran, or by a snapshot that was lost

	// Again has the DiffIDs of snapshots that cannot be had though a store lists them: what
	// follows is restored if their steps make the same again.
	Again map[*dag.Step]digest.Digest

	asked   map[*dag.Layer]bool // see AskScratch
	scratch map[key.Key]bool    // the applied steps whose snapshots have some
}

// Applied returns what is recorded of a step that the root has.
func (sv *Survey) Applied(k key.Key) record.Applied {
	for _, l := range sv.State.Layers {
		for _, a := range l.Steps {
			if a.Key == k {
				return a
			}
		}
	}
	return record.Applied{}
}

// New returns a survey of a root of which the state and the platform are known.
func New(state *record.State, platform string) *Survey {
	sv := &Survey{State: state, Platform: platform, Found: make(map[key.Key]cache.Found), Changed: make(map[*dag.Step]bool), Again: make(map[*dag.Step]digest.Digest), scratch: make(map[key.Key]bool)}
	for _, l := range state.Layers {
		for _, a := range l.Steps {
			if a.Scratch {
				sv.scratch[a.Key] = true
			}
		}
	}
	return sv
}

// ChecksLate reports whether the needs of a cached step are checked again before it is
// applied: what they are checked against was not all in the root when the plan was made.
func (sv *Survey) ChecksLate(it *dag.Item) bool { return it.State == dag.Cached && sv.Late[it.Key] }

// Lose removes keys from what the stores, or the root, have, and plans again.
func (sv *Survey) Lose(keys ...key.Key) {
	for _, s := range sv.Plan.Graph.Steps() {
		if k := sv.Plan.Keys.Step[s]; slices.Contains(keys, k) && sv.Found[k].Entries > 0 && sv.Again[s] == "" {
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

// Change notes that steps changed something, which the plan had left open, and
// plans again: cached steps that follow them are to run.
func (sv *Survey) Change(steps ...*dag.Step) {
	for _, s := range steps {
		sv.Changed[s] = true
	}
	sv.Lose()
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
	return sv.State.Platform != "" && !sv.State.Retry() && !sv.State.Failed() && sv.sameEnv() && slices.EqualFunc(sv.State.Layers, sv.Layers(), func(l record.Layer, k record.LayerKeys) bool {
		return l.Name == k.Name && slices.EqualFunc(l.Steps, k.Steps, func(a record.Applied, k key.Key) bool { return a.Key == k })
	})
}

// Env is the environment of the composition.
func (sv *Survey) Env() []frontend.Var { return sv.Plan.Graph.Env(len(sv.Plan.Layers)) }

// Layers returns the composition as the state records it.
func (sv *Survey) Layers() []record.LayerKeys {
	var layers []record.LayerKeys
	for i, pl := range sv.Plan.Layers {
		l := record.LayerKeys{Name: pl.Layer.Name, Env: Env(sv.Plan.Graph, i+1)}
		for _, it := range pl.Items {
			l.Steps = append(l.Steps, it.Key)
		}
		layers = append(layers, l)
	}
	return layers
}

// Present returns the steps that are in the root and stay as they are: those up
// to where the composition departs from what was applied (a step was edited, or
// removed, or layers changed places, or one was applied in part, or what it stands on is
// gone, or again says that it is to run). What follows is under something else now, so it is undone, and applied again.
func Present(g *dag.Graph, keys *dag.Keys, state *record.State, gone map[key.Key]string, again func(*dag.Step) bool) map[*dag.Step]bool {
	there := make(map[*dag.Step]bool)
	for i, s := range Order(g) {
		if i >= len(state.Log) || state.Log[i].Key != keys.Step[s] || state.Log[i].Incomplete || gone[keys.Step[s]] != "" || again != nil && again(s) {
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
	all := Order(g)
	if i := slices.IndexFunc(all, func(s *dag.Step) bool { return !present[s] }); i >= 0 {
		return i
	}
	return len(all)
}

// Order returns the steps that have a snapshot, in composition order.
func Order(g *dag.Graph) []*dag.Step {
	return slices.DeleteFunc(g.Steps(), func(s *dag.Step) bool { return !s.ChangesRoot() })
}

// Env is the environment of the first n layers as the state records it.
func Env(g *dag.Graph, n int) []record.Var {
	var vars []record.Var
	for _, v := range g.Env(n) {
		vars = append(vars, record.Var(v))
	}
	return vars
}

// sameEnv reports whether the state has the plan's environment.
func (sv *Survey) sameEnv() bool {
	return slices.Equal(sv.State.Env, Env(sv.Plan.Graph, len(sv.Plan.Graph.Layers)))
}

// PendingBelow reports whether a layer is composed after steps that are not in the root,
// and that its keys do not cover.
func PendingBelow(l *dag.Layer, pending map[*dag.Layer]bool) bool {
	covered := true
	for on, ordered := l.On, l.Ordered; on != nil; on, ordered = on.On, on.Ordered {
		if covered = covered && !ordered; !covered && pending[on] {
			return true
		}
	}
	return false
}
