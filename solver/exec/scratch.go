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
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/scratch"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/sandbox"
)

// Scratch is what a step leaves in /tmp or /var/tmp: see package survey. In place it is put
// into the root's own /tmp before a RUN, and removed at the end.

// dropExcess removes from what the next steps see what the snapshot of a RUN lacks: they
// find the same when that is restored.
func (b *builder) dropExcess(ctx context.Context, v sandbox.View, s *dag.Step, x *scratch.Excess) error {
	if len(x.Paths) == 0 {
		return nil
	}
	b.Report.Warnf("%s: it leaves more than %s in /tmp and /var/tmp: %d files of %s there, /%s first, are dropped, and no later step sees them; remove what is not needed, or use another directory",
		s.Pos(), sizes.Format(scratch.Most), len(x.Paths), sizes.Format(x.Bytes), x.Paths[0])
	layered, ok := v.(sandbox.Layered)
	if !ok {
		return b.lock.Scratch().Put(ctx, x.Deletions)
	}
	bytes, packed, err := b.pack(ctx, x.Deletions())
	if err != nil {
		return err
	}
	defer bytes.Close()
	return layered.Apply(ctx, io.NewSectionReader(bytes, 0, packed.Size), record.Placement{})
}

// forRootAlone reports whether nothing of a step's snapshot is scratch.
func forRootAlone(s *dag.Step) bool {
	_, ok := s.Instr.(*frontend.Snapshot)
	return ok
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
	want, held := b.scratchBefore(it.Step), b.lock.Scratch()
	if n := len(b.scratchIn); n > len(want) || !slices.Equal(b.scratchIn, want[:n]) {
		b.leaveScratch()
	}
	for _, s := range want[len(b.scratchIn):] {
		bl := b.blob(s)
		if bl == nil {
			panic("exec: scratch of a step that was not fetched")
		}
		err := held.Put(ctx, func() snapshot.Changes { return snapshot.Scratch(snapshot.ReadUnvalidated(bl.reader())) })
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
	b.inPlace.SetScratch(held.Names())
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
