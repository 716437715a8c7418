package inplace

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/clayer/clayer/internal/clamp"
	"github.com/clayer/clayer/internal/tree"
)

// clamp gives what was written since the reading before the time, on the root and in the
// reading. It leaves alone what a process has open: that is another's, since all that a
// command started has ended, and who reads it may go by its time.
func (p *place) clamp(to time.Time, after *tree.Reading, b *tree.Between) error {
	if to.IsZero() {
		return nil
	}
	p.span.End()
	written := tree.Written(p.at, after, p.span.Holds, b.Filter, b.Hide)
	if len(written) == 0 {
		return nil
	}
	inUse := make(map[string]bool)
	for _, at := range openPaths(p.s.Root) {
		if rel, err := filepath.Rel(p.s.Root, at); err == nil {
			inUse[rel] = true
		}
	}
	written = slices.DeleteFunc(written, func(w tree.Fresh) bool { return w.File && inUse[w.Path] })
	if err := clamp.Set(p.s.Root, clamp.Plan(written), to); err != nil {
		return err
	}
	after.Touched(written)
	return after.Restamped(p.s.Root, written)
}
