package solver

import (
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/needs"
)

// Named returns the packages that the command of a step installs, as it names them. One
// that goes to another directory than the machine's, or that is a file, is none.
func (r *session) Named(s *dag.Step) (list []needs.Named) {
	for _, in := range inventory.InstallsOf(s) {
		if manager := inventory.ManagerOf(in); manager != "" && in.Verdict == edit.Captured {
			for _, p := range in.Install.Packages {
				list = append(list, needs.Named{Manager: manager, Package: p})
			}
		}
	}
	return list
}
