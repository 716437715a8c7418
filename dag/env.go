package dag

import (
	"maps"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/reference"
)

// Env returns the variables of a composition in order of
// definition, later layers winning; of the first n layers alone.
// References that are left are to the session: what one layer refers to and a layer
// before it sets is that.
func (g *Graph) Env(n int) []frontend.Var {
	var env []frontend.Var
	for _, l := range g.Layers[:n] {
		was := slices.Clone(env)
		for _, v := range l.Scope.Env {
			if l.On != nil && !l.Ordered && slices.Contains(l.On.Scope.Env, v) {
				continue // inherited by FROM, and in env already
			}
			v.Value = reference.Substitute(v.Value, func(name string) string {
				if i := indexVar(was, name); i >= 0 {
					return was[i].Value
				}
				return reference.To(name)
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

// searchPaths are lists of directories in which a second mention of one changes nothing.
var searchPaths = []string{"PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "PYTHONPATH", "NODE_PATH", "MANPATH", "PKG_CONFIG_PATH", "XDG_DATA_DIRS"}

// uniqueParts drops from a list of directories those that it has already: two
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

// SetVars sets variables in env; what a value refers to is looked up in env as it was
// before, and then in the session.
func SetVars(env map[string]string, vars []frontend.Var, session map[string]string) {
	was := maps.Clone(env)
	for _, v := range vars {
		env[v.Name] = reference.Substitute(v.Value, func(name string) string {
			if value, ok := was[name]; ok {
				return value
			}
			return session[name]
		})
	}
}
