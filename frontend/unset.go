package frontend

import (
	"maps"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend/internal/lexical"
)

// A Use is a variable that an instruction refers to.
type Use struct {
	Instr   *Meta
	Name    string
	Nearest string // a variable that is set, and was probably meant; "" for none
}

// Unset returns the references to variables that nothing sets: no ENV and no
// ARG before the line, and not the scope. One with a fallback, ${NAME:-x}, is
// none of them, and neither is what a RUN leaves to its shell. What cannot be
// resolved is passed over.
func (f *File) Unset(s Scope) []Use { return f.uses(s, false) }

// OfSession returns the references whose values the session decides: to variables that no ENV
// and no ARG before the line sets, and not the rest of the scope. What a RUN leaves to its
// shell is none of them.
func (f *File) OfSession(s Scope) []Use {
	s.Session = nil
	return f.uses(s, true)
}

func (f *File) uses(s Scope, fallbacks bool) []Use {
	var uses []Use
	declared := make(map[string]bool)
	for _, v := range s.Env {
		declared[v.Name] = true
	}
	r := f.resolver(s)
	for _, in := range f.Instructions {
		m := in.Base()
		r.err = nil
		r.unset = func(name string) {
			use := Use{Instr: m, Name: name}
			if !declared[name] && (fallbacks || !f.hasFallback(m, name)) && !slices.Contains(uses, use) {
				uses = append(uses, use)
			}
		}
		_, _ = r.resolve(in) // its errors are Resolve's
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
	names := slices.Sorted(maps.Keys(declared))
	for i := range uses {
		uses[i].Nearest = Nearest(uses[i].Name, names)
	}
	return uses
}

// hasFallback reports whether an instruction says what to do without the variable.
func (f *File) hasFallback(m *Meta, name string) bool {
	text := strings.Join(f.Lines[m.Pos.Line-1:m.Pos.End], "\n")
	for _, form := range []string{":-", ":+", ":?", "-", "+", "?"} {
		if strings.Contains(text, "${"+name+form) {
			return true
		}
	}
	return false
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
