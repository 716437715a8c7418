package frontend

import (
	"maps"

	"github.com/clayer/clayer/frontend/reference"
)

// SetVars sets variables in env; what a value refers to is looked up in env as it was
// before, and then in the session.
func SetVars(env map[string]string, vars []Var, session map[string]string) {
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
