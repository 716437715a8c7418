package solver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// compositionEnv returns the variables of a composition in order of
// definition, later layers winning; of the first n layers alone. References that are left are to the
// session: what one layer refers to and a layer before it sets is that.
func compositionEnv(g *dag.Graph, n int) []frontend.Var {
	var env []frontend.Var
	for _, l := range g.Layers[:n] {
		was := slices.Clone(env)
		for _, v := range l.Scope.Env {
			if l.On != nil && !l.Ordered && slices.Contains(l.On.Scope.Env, v) {
				continue // inherited by FROM, and in env already
			}
			v.Value = frontend.Substitute(v.Value, func(name string) string {
				if i := indexVar(was, name); i >= 0 {
					return was[i].Value
				}
				return frontend.Ref(name)
			})
			if slices.Contains(searchPaths, v.Name) {
				v.Value = uniqueParts(v.Value)
			}
			if i := indexVar(env, v.Name); i >= 0 {
				env[i] = v
			} else {
				env = append(env, v)
			}
		}
	}
	return env
}

func indexVar(vars []frontend.Var, name string) int {
	return slices.IndexFunc(vars, func(v frontend.Var) bool { return v.Name == name })
}

// searchPaths are lists of folders in which a second mention of one changes nothing.
var searchPaths = []string{"PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "PYTHONPATH", "NODE_PATH", "MANPATH", "PKG_CONFIG_PATH", "XDG_DATA_DIRS"}

// uniqueParts drops from a list of folders those that it has already: two
// layers FROM one that sets PATH both carry its part.
func uniqueParts(list string) string {
	var parts []string
	for p := range strings.SplitSeq(list, ":") {
		if !slices.Contains(parts, p) {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ":")
}

// stateEnv is the environment of the first n layers as the state keeps it.
func stateEnv(g *dag.Graph, n int) []record.Var {
	var vars []record.Var
	for _, v := range compositionEnv(g, n) {
		vars = append(vars, record.Var(v))
	}
	return vars
}

// sameEnv reports whether the state has the plan's environment.
func (sv *survey) sameEnv() bool {
	return slices.Equal(sv.state.Env, stateEnv(sv.plan.Graph, len(sv.plan.Graph.Layers)))
}

// Env returns the variables of the request's files, or, where it has none, of
// what is applied to its root.
func Env(opt Options) ([]frontend.Var, error) {
	if len(opt.Files) > 0 {
		g, err := newReadOnly(opt).graph()
		if err != nil {
			return nil, err
		}
		return compositionEnv(g, len(g.Layers)), nil
	}
	st, err := Status(opt)
	if err != nil {
		return nil, err
	}
	return envVars(st.State.Env), nil
}

func envVars(env []record.Var) []frontend.Var {
	var vars []frontend.Var
	for _, v := range env {
		vars = append(vars, frontend.Var(v))
	}
	return vars
}

// A RootStatus is what is known of a root.
type RootStatus struct {
	Root   string        `json:"root"`
	State  *record.State `json:"state"`
	CutOff bool          `json:"cutOff,omitempty"` // a command is changing the root, or was cut off: State is from before
}

// Status reads what is applied to the request's root. It never waits.
func Status(opt Options) (*RootStatus, error) {
	root, err := opt.open()
	if err != nil {
		return nil, err
	}
	state, err := root.State()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	cut, err := root.CutOff()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return &RootStatus{Root: root.Dir(), State: state, CutOff: cut}, nil
}
