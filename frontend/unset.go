package frontend

import (
	"maps"
	"slices"

	"github.com/clayer/clayer/frontend/internal/lexical"
)

// A Use is a variable that an instruction refers to.
type Use struct {
	Instr *Meta
	Name  string
}

// OfSession returns the references whose values the session decides: to variables that no ENV
// and no ARG before the line sets, and not the rest of the scope. What a RUN leaves to its
// shell is none of them.
func (f *File) OfSession(s Scope) []Use {
	s.Session = nil
	var uses []Use
	declared := make(map[string]bool)
	for _, v := range s.Env {
		declared[v.Name] = true
	}
	r := f.resolver(s)
	for _, in := range f.Instructions {
		m := in.Base()
		if _, ok := in.(*Ignored); ok {
			continue // its value is the image's
		}
		r.err = nil
		r.unset = func(name string) {
			use := Use{Instr: m, Name: name}
			if !declared[name] && !slices.Contains(uses, use) {
				uses = append(uses, use)
			}
		}
		_, _ = r.resolveAll(in) // its errors are Resolve's
		switch in := in.(type) {
		case *Env:
			for _, v := range in.Vars {
				declared[v.Name] = true
			}
		case *Arg:
			for _, d := range in.Args {
				declared[d.Name] = true
			}
		}
	}
	return uses
}

func (r *resolver) reportUnset(names map[string]struct{}) {
	if r.unset == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		r.unset(name)
	}
}

// Given reports whether a flag was written.
func (f *Fetch) Given(name string) bool {
	return slices.ContainsFunc(f.flags, func(fl lexical.Flag) bool { return fl.Name == name })
}
