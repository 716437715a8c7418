// Package reference has what stands in the value of an ENV for a variable of the session, whose
// value differs between machines and so must not enter a key: its name between two marks.
package reference

import "strings"

// Mark stands before and after the name of a reference: no source text can hold it.
const Mark = "\x00"

// To returns a reference to the variable name of the session.
func To(name string) string { return Mark + name + Mark }

// Substitute replaces the references in the value of an ENV by what lookup
// returns for their names.
func Substitute(value string, lookup func(name string) string) string {
	if !strings.Contains(value, Mark) {
		return value
	}
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(value, Mark)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, Mark)
		b.WriteString(lookup(name))
		value = after
	}
}

// Names returns the names that the value of an ENV refers to, in order, each
// as often as it stands there.
func Names(value string) []string {
	var names []string
	Substitute(value, func(name string) string {
		names = append(names, name)
		return ""
	})
	return names
}
