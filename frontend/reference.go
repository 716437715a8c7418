package frontend

import (
	"maps"
	"strings"
)

// A reference stands in the value of an ENV for a variable of the session,
// whose value differs between machines and so must not enter a key: its name
// between two NULs, which no source text can hold.
const mark = "\x00"

// Ref returns a reference to the variable name of the session.
func Ref(name string) string { return mark + name + mark }

// Substitute replaces the references in the value of an ENV by what lookup
// returns for their names.
func Substitute(value string, lookup func(name string) string) string {
	if !strings.Contains(value, mark) {
		return value
	}
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(value, mark)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, mark)
		b.WriteString(lookup(name))
		value = after
	}
}

// Refs returns the names that the value of an ENV refers to, in order, each
// as often as it stands there.
func Refs(value string) []string {
	var names []string
	Substitute(value, func(name string) string {
		names = append(names, name)
		return ""
	})
	return names
}

// SetVars sets variables in env; what a value refers to is looked up in env as it was
// before, and then in the session.
func SetVars(env map[string]string, vars []Var, session map[string]string) {
	was := maps.Clone(env)
	for _, v := range vars {
		env[v.Name] = Substitute(v.Value, func(name string) string {
			if value, ok := was[name]; ok {
				return value
			}
			return session[name]
		})
	}
}
