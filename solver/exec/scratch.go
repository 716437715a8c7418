package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/sandbox"
)

// Scratch is what a step leaves in /tmp or /var/tmp: see package survey. In place it is put
// into the root's own /tmp before a RUN, and removed at the end.

// maxScratch is how much scratch of a RUN its snapshot holds: file contents, and
// scratchEntry for each entry.
const (
	maxScratch   = 256e6
	scratchEntry = 512
)

// scratchOf returns how much of the bound an entry takes: nothing outside of scratch.
func scratchOf(e *snapshot.Entry) int64 {
	if !snapshot.IsScratch(e.Path) || e.Kind == snapshot.Delete {
		return 0
	}
	if e.Data == nil {
		return e.Size + scratchEntry
	}
	n := int64(scratchEntry)
	for _, x := range e.Data {
		n += x.Length
	}
	return n
}

// excess is the scratch of a RUN that is more than its snapshot may hold.
type excess struct {
	paths []string
	bytes int64
}

// without hands on changes without the excess.
func (x *excess) without(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		*x = excess{} // it may be read again
		left := int64(maxScratch)
		dropped := make(map[string]bool)
		for e, err := range changes {
			if err == nil {
				n := scratchOf(e)
				if n > left || e.Kind == snapshot.Link && dropped[e.Target] {
					x.paths, x.bytes = append(x.paths, e.Path), x.bytes+n
					dropped[e.Path] = true
					continue
				}
				left -= n
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// deletions returns the changes that remove the excess, what is in a directory first.
func (x *excess) deletions() snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		gone := ""
		for _, p := range x.paths {
			if gone != "" && pathname.Under(p, gone) {
				continue
			}
			gone = p
			if !yield(&snapshot.Entry{Path: p, Kind: snapshot.Delete}, nil) {
				return
			}
		}
	}
}

// dropExcess removes from what the next steps see what the snapshot of a RUN lacks: they
// find the same when that is restored.
func (b *builder) dropExcess(ctx context.Context, v sandbox.View, s *dag.Step, x *excess) error {
	if len(x.paths) == 0 {
		return nil
	}
	b.Report.Warnf("%s: it leaves more than %s in /tmp and /var/tmp: %d files of %s there, /%s first, are dropped, and no later step sees them; remove what is not needed, or use another directory",
		s.Pos(), sizes.Format(maxScratch), len(x.paths), sizes.Format(x.bytes), x.paths[0])
	layered, ok := v.(sandbox.Layered)
	if !ok {
		return b.lock.Scratch().Put(ctx, x.deletions)
	}
	bytes, packed, err := b.pack(ctx, x.deletions())
	if err != nil {
		return err
	}
	defer bytes.Close()
	return layered.Apply(ctx, io.NewSectionReader(bytes, 0, packed.Size), record.Placement{})
}

// boundScratch hands on the entries of a snapshot that a store has, and ends with an error
// where that holds more scratch than any RUN's does. What a COPY or FETCH puts there is
// as large as its source.
func boundScratch(s *dag.Step, changes snapshot.Changes) snapshot.Changes {
	if _, run := s.Instr.(*frontend.Run); !run {
		return changes
	}
	return func(yield func(*snapshot.Entry, error) bool) {
		left := int64(maxScratch)
		for e, err := range changes {
			if err == nil {
				if left -= scratchOf(e); left < 0 {
					err = &snapshot.UnsafeError{Path: e.Path, Reason: fmt.Sprintf("more than %s of temporary files", sizes.Format(maxScratch))}
				}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// forRootAlone reports whether nothing of a step's snapshot is scratch.
func forRootAlone(s *dag.Step) bool {
	_, ok := s.Instr.(*frontend.Snapshot)
	return ok
}

// scratchBelow returns what of a SNAPSHOT's path is scratch: itself, or the directories
// that are below it. What the steps left there is in their snapshots, but for no root.
func scratchBelow(at string) (paths []string) {
	if snapshot.IsScratch(at[1:]) {
		return []string{at}
	}
	for _, dir := range snapshot.ScratchDirs() {
		if pathname.Under("/"+dir, at) {
			paths = append(paths, "/"+dir)
		}
	}
	return paths
}

// scratchBefore returns the steps before one whose scratch it sees, in order.
func (b *builder) scratchBefore(at *dag.Step) (steps []*dag.Step) {
	for _, it := range b.sv.Before(at) {
		if survey.SeesScratchOf(at.Layer, it.Step.Layer) && (b.scratch[it.Step] || b.sv.HasScratch(it)) {
			steps = append(steps, it.Step)
		}
	}
	return steps
}

// enterScratch has the root's scratch directories hold what a RUN in place is to find
// there.
func (b *builder) enterScratch(ctx context.Context, it *dag.Item) error {
	want, scratch := b.scratchBefore(it.Step), b.lock.Scratch()
	if n := len(b.scratchIn); n > len(want) || !slices.Equal(b.scratchIn, want[:n]) {
		b.leaveScratch()
	}
	for _, s := range want[len(b.scratchIn):] {
		bl := b.blob(s)
		if bl == nil {
			panic("exec: scratch of a step that was not fetched")
		}
		err := scratch.Put(ctx, func() snapshot.Changes { return snapshot.Scratch(snapshot.ReadUnvalidated(bl.reader())) })
		var unsafe *snapshot.UnsafeError
		if errors.As(err, &unsafe) {
			return b.failure(s, err) // the same as in a view
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrRoot, s.Pos(), err)
		}
		b.scratchIn = append(b.scratchIn, s)
		b.inPlace.Stale()
	}
	b.inPlace.SetScratch(scratch.Names())
	return nil
}

// applyCaptured applies the scratch that a SNAPSHOT in place captured: from here on it is
// the root's, and no more of those that leaveScratch removes.
func (b *builder) applyCaptured(ctx context.Context, it *dag.Item, applied record.Applied, changes snapshot.Changes) error {
	b.leaveScratch()
	res, err := b.lock.Apply(ctx, applied, snapshot.Scratch(changes))
	b.inPlace.Stale()
	return b.applyFailure(it, res, err)
}

// holdScratch notes what a RUN in place left in the scratch directories, also one that
// failed, for leaveScratch.
func (b *builder) holdScratch() error {
	if err := b.lock.Scratch().Hold(b.inPlace.Scratch()); err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return nil
}

// leaveScratch removes what steps have left in the scratch directories of the root. What
// cannot be removed, as what sudo made there, stays.
func (b *builder) leaveScratch() {
	b.scratchIn = nil
	if err := b.lock.Scratch().Remove(); err != nil {
		b.Report.Warnf("%v", err)
	}
}
