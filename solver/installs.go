package solver

import (
	"slices"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/solver/internal/needs"
)

// Installs reports whether a step is a RUN in which a package manager installs
// what no RUN that its key covers names. If it changed nothing, it found that on
// the machine, and its snapshot would install it on no other.
func (r *session) Installs(s *dag.Step) bool {
	named := make(map[string]bool)
	for l, i := s.Layer, s.Index; l != nil; {
		for _, before := range l.Steps[:i] {
			for _, r := range installsOf(before) {
				if r.Verdict == edit.Captured {
					for _, name := range r.Install.Names() {
						named[r.Manager+" "+name] = true
					}
				}
			}
		}
		if l.Ordered {
			break // what it is composed after enters no key
		}
		if l = l.On; l != nil {
			i = len(l.Steps)
		}
	}
	return slices.ContainsFunc(installsOf(s), func(r edit.Reading) bool {
		return r.Verdict != edit.Captured || len(r.Install.Packages) == 0 ||
			slices.ContainsFunc(r.Install.Names(), func(name string) bool { return !named[r.Manager+" "+name] })
	})
}

// managers are those of which a need can name a package.
var managers = map[string]string{"apt": snapshot.ManagerDpkg, "pip": snapshot.ManagerPython, "uv pip": snapshot.ManagerPython}

// Named returns the packages that the command of a step installs, as it names them. One
// that goes to another directory than the machine's, or that is a file, is none.
func (r *session) Named(s *dag.Step) (list []needs.Named) {
	for _, in := range installsOf(s) {
		if manager, known := managers[in.Manager]; known && in.Verdict == edit.Captured {
			for _, p := range in.Install.Packages {
				list = append(list, needs.Named{Manager: manager, Package: p})
			}
		}
	}
	return list
}

// installsOf returns the installs of a step's command line.
func installsOf(s *dag.Step) (list []edit.Reading) {
	run, ok := s.Instr.(*frontend.Run)
	if !ok {
		return nil
	}
	for _, argv := range lint.Commands(run) {
		if r := edit.Read(argv, edit.Place{}); r.Verdict != edit.Nothing {
			list = append(list, r)
		}
	}
	return list
}
