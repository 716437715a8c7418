package rootfs

import (
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/revert"
)

func (r *Root) past() *revert.Root {
	return &revert.Root{Dir: r.dir, Lower: r.lower, State: r.state, Sys: r.sys}
}

// Revert returns the changes that give back what the root was before the events, which
// are the last of its log; those before them stay. The caller applies them over a view,
// which, where the root is layered over another one, shows both.
func (r *Root) Revert(stay, events []record.Event) (snapshot.Changes, error) {
	return r.past().Revert(stay, events)
}

// RevertOf is Revert of the paths that are wanted. Of others the changes say nothing.
func (r *Root) RevertOf(stay, events []record.Event, wanted func(path string) bool) (snapshot.Changes, error) {
	return r.past().RevertOf(stay, events, wanted)
}

// Wrote returns the paths that an event of the log has made or deleted.
func (r *Root) Wrote(ev record.Event) ([]string, error) { return r.state.Paths(ev) }
