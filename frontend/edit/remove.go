package edit

import (
	"path/filepath"
	"slices"

	"github.com/clayer/clayer/frontend"
)

// A Removal is what one command line of a package manager removes.
type Removal struct {
	Manager string
	Names   []string // as the manager compares them
}

// Removes returns what a command line removes from the environment; no names: nothing.
func Removes(argv []string, at Place) Removal {
	if len(argv) < 2 {
		return Removal{}
	}
	program, args := filepath.Base(argv[0]), argv[1:]
	if isPython(program) {
		i := pythonModule(args)
		if i < 0 {
			return Removal{}
		}
		args = args[i:]
	}
	for _, m := range managers {
		if slices.Contains(m.programs, program) {
			if names := m.removed(args, at); len(names) > 0 {
				return Removal{m.name, names}
			}
		}
	}
	return Removal{}
}

func (m *manager) removed(args []string, at Place) (names []string) {
	var verbs int
	var opts []arg
	for _, a := range m.options().scan(args) {
		last := verbs == len(m.verbs)-1
		switch {
		case a.name != "":
			opts = append(opts, a)
		case verbs == len(m.verbs):
			names = append(names, m.nameOf(a.value))
		case last && a.value != "sync" && slices.Contains(m.removes, a.value), !last && slices.Contains(m.verbs[verbs], a.value):
			verbs++
		default:
			return nil
		}
	}
	has := func(is func(arg) bool) bool { return slices.ContainsFunc(opts, is) }
	if has(func(a arg) bool { return a.effect == never }) || m.require != "" && !has(func(a arg) bool { return a.name == m.require }) || m.venv != nil && m.venv(at, opts) != "" {
		return nil
	}
	return names
}

// A Mention is a line of a Containerfile that installs packages.
type Mention struct {
	Line  int
	Names []string
}

// Mentions returns the RUNs of a Containerfile that install what a Removal removes.
func Mentions(src []byte, r Removal) (list []Mention) {
	f, err := parse(src)
	if err != nil {
		return nil
	}
	for _, instr := range f.Instructions {
		run, ok := instr.(*frontend.Run)
		if !ok {
			continue
		}
		m := Mention{Line: run.Base().Pos.Line}
		for _, argv := range argvs(run) {
			in := Read(argv, Place{})
			if in.Verdict != Captured || in.Manager != r.Manager {
				continue
			}
			for _, name := range in.Install.Names() {
				if slices.Contains(r.Names, name) && !slices.Contains(m.Names, name) {
					m.Names = append(m.Names, name)
				}
			}
		}
		if len(m.Names) > 0 {
			list = append(list, m)
		}
	}
	return list
}
