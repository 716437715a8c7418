package solver

import (
	"slices"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/internal/pathname"
)

// installs reports whether a step is a RUN in which a package manager installs
// what no RUN that its key covers names. If it changed nothing, it found that on
// the machine, and its snapshot would bring it to no other.
func installs(s *dag.Step) bool {
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
			break // what it is composed behind enters no key
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

// counting passes changes on, and counts those that are more than what package
// managers leave behind when there is nothing to install.
func counting(changes snapshot.Changes, n *int) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		*n = 0 // it may be read again
		for e, err := range changes {
			if err == nil && !isLeftover(e) {
				*n++
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// leftovers are directories of lists, caches and logs.
var leftovers = []string{"var/cache", "var/log", "var/lib/apt", "var/lib/dnf"}

func isLeftover(e *snapshot.Entry) bool {
	return slices.ContainsFunc(leftovers, func(dir string) bool {
		return pathname.Under(e.Path, dir) || e.Kind == snapshot.Dir && pathname.Under(dir, e.Path)
	})
}
