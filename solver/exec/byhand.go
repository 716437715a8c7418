package exec

import (
	"sync"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver/internal/inventory"
)

// An Installed is a package that was installed by hand after clayer saw the root first.
type Installed = inventory.Package

// A ByHandError is the warning that a step runs on a machine that has what neither its
// base record nor clayer explains.
type ByHandError = inventory.ByHandError

// A handmade is what was installed by hand, once it is known.
type handmade struct {
	once     sync.Once
	now      *inventory.Inventory
	packages []Installed
}

// byHand returns what was installed by hand. It is called before the first RUN, and
// reports it.
func (b *builder) byHand() []Installed {
	b.here.once.Do(func() {
		state := b.sv.State
		if b.lock != nil {
			state = b.lock.State() // in place that is of the steps before, too
		}
		var err error
		b.here.now, b.here.packages, err = inventory.ByHand(b.root, state, b.Home)
		if err != nil {
			b.Report.Warnf("what was installed by hand here is not known: %v", err)
		}
		if len(b.here.packages) > 0 {
			b.did.ByHand = b.here.packages
			b.Report.WarnError(&ByHandError{Packages: b.here.packages})
		}
	})
	return b.here.packages
}

// byHandNeeds returns the needs of a step's snapshot with those of the packages that the
// step may have found.
func (b *builder) byHandNeeds(s *dag.Step, bl *blob) []snapshot.Need {
	lacks := inventory.MayLack(s, b.here.packages, bl.installedNothing, func(manager string) bool {
		changes, ok := bl.names.Changes()
		return !ok || inventory.Changed(changes, manager)
	})
	return b.here.now.AddNeeds(bl.desc.Needs, lacks)
}
