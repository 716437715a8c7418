package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/exec/internal/contents"
	"github.com/clayer/clayer/solver/exec/internal/failure"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/internal/unpack"
	"github.com/clayer/clayer/solver/preserved"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/source"
)

// Commit commits what was applied.
func (b *builder) Commit(ctx context.Context) error {
	b.leaveRoot()
	left, err := b.Profile(ctx, b.lock)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	b.preserve(left...)
	if err := b.lock.Commit(b.sv.Platform, b.sv.Layers(), survey.Env(b.sv.Plan.Graph, len(b.sv.Plan.Layers))); err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	b.did.Incomplete = Incomplete(b.incomplete)
	return nil
}

// Rollback leaves the root as it was.
func (b *builder) Rollback() error {
	if err := b.lock.Rollback(); err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	b.did.Undone, b.incomplete, b.fetching = 0, nil, nil
	return nil
}

// mustUndo reports whether something in the root has to go, or to be tried again.
func (b *builder) mustUndo() bool {
	return len(b.lock.State().Log) != survey.Staying(b.sv.Plan.Graph, b.sv.Answers.Present) || b.lock.State().Retry()
}

// Undoes reports whether Undo changes the root; the profile is the first to go.
func (b *builder) Undoes() bool { return b.mustUndo() || b.lock.State().Profile != nil }

// Undo begins the transaction: it undoes the applies after those that stay.
func (b *builder) Undo(ctx context.Context) error {
	b.Report.Emit(report.Event{Kind: report.Applying, Text: b.root.Dir()})
	if !b.mustUndo() {
		return nil
	}
	undone, err := b.lock.Undo(ctx, survey.Staying(b.sv.Plan.Graph, b.sv.Answers.Present), b.Force)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	b.did.Undone = len(undone.Steps)
	b.preserve(undone.Preserved...)
	if b.isInPlace() {
		// The next RUN takes care of it: its snapshot has what is there.
		if b.dirty, undone.Lost = undone.Lost, nil; len(b.dirty) > 0 {
			b.lost = running.AddLost(b.sv.State.Lost, b.dirty)
			if err := b.lock.SetLost(b.lost); err != nil {
				return fmt.Errorf("%w: %w", ErrRoot, err)
			}
		}
	}
	b.incomplete = append(b.incomplete, preserved.NotUndone(undone)...)
	return nil
}

// foundLost is State.Lost as the steps of this solve find it.
func (b *builder) foundLost() []string {
	if b.lost != nil {
		return b.lost
	}
	return b.sv.State.Lost
}

// differs reports whether a step that has run found something else than its chain
// describes: what undone steps have changed for good, what its view could not show, or
// another result of a step than the one that stores list.
func (b *builder) differs(it *dag.Item) bool {
	if it.State != dag.ToRun || b.reused(it.Step) {
		return false
	}
	if b.isOther(it.Step) {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return it.Step.LooksAtRoot() && (len(b.foundLost()) > 0 || b.inexact[it.Step]) || b.identity.Differ(it.Step)
}

// preserve warns of files that stay as the user has them, each once.
func (b *builder) preserve(files ...rootfs.Preserved) {
	var added []rootfs.Preserved
	for _, k := range files {
		if !slices.ContainsFunc(b.did.Preserved, func(x rootfs.Preserved) bool { return x.Path == k.Path }) {
			added = append(added, k)
			b.did.Preserved = append(b.did.Preserved, k)
		}
	}
	for _, err := range preserved.Errors(added) {
		b.Report.WarnError(err)
	}
}

// applying is what became of applying an item, until the rest of its snapshot is
// verified.
type applying struct {
	res      unpack.Result
	contents *cache.Contents
}

// Apply applies an item to the root. Its snapshot may still be arriving.
func (b *builder) Apply(ctx context.Context, it *dag.Item) error {
	var early *cache.Reader
	if arriving := b.fetching[it.Step]; arriving != nil && !b.Has(it.Step) {
		early = arriving.Reader(ctx)
		defer early.Close()
		ctx = early.Context()
	}
	if err := b.unmetHere(it, b.root.Names()); err != nil {
		return b.applyFailure(it, unpack.Result{}, err)
	}
	applied, contents, changes, err := b.applied(ctx, it, early)
	if err != nil {
		return b.applyFailure(it, unpack.Result{}, err)
	}
	res, err := b.lock.Apply(ctx, applied, changes)
	if err != nil && early != nil {
		if lost := early.Wait(); lost != nil {
			return lost
		}
	}
	b.applying, b.scratch[it.Step] = applying{res, contents}, res.Scratch
	return b.applyFailure(it, res, err)
}

// Verify checks, when all of the snapshot of the item that was applied has arrived,
// that its table of contents is that of what was applied.
func (b *builder) Verify(_ context.Context, it *dag.Item) error {
	a := b.applying
	if a.contents != nil {
		if err := a.contents.CheckTable(b.blob(it.Step).bytes); err != nil {
			return b.applyFailure(it, unpack.Result{}, err)
		}
	}
	b.Report.Emit(report.Event{Kind: report.Applied, Step: it.Step, Entries: a.res.Entries, Bytes: a.res.Bytes})
	return nil
}

func (b *builder) applyFailure(it *dag.Item, res unpack.Result, err error) error {
	s := it.Step
	if bad, ok := contents.Invalid(it, err); ok {
		return bad
	}
	if res.Foreign.Files > 0 {
		b.Report.Warnf("%s: %s cannot be set here: this user, or its user namespace, does not have that id", s.Pos(), res.Foreign)
	}
	for _, p := range res.Preserved {
		b.preserve(rootfs.Preserved{Path: p, Why: "changed since"})
	}
	for _, p := range res.Problems {
		b.incomplete = append(b.incomplete, fmt.Errorf("%s: /%s: %w", s.Pos(), p.Path, p.Err))
	}
	var fault *source.Fault
	if err = misplaced(err); errors.As(err, &fault) {
		return b.failure(s, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: apply %s: %w", ErrRoot, s.Pos(), it.Key.Short(), err)
	}
	return nil
}

// applied is what is recorded of an item, and its changes: early is its snapshot,
// where that is not all there yet. What a store had is checked while it is read.
func (b *builder) applied(ctx context.Context, it *dag.Item, early *cache.Reader) (applied record.Applied, c *cache.Contents, changes snapshot.Changes, err error) {
	s := it.Step
	applied = record.Applied{
		Key: it.Key, Encoding: key.Encoding, Layer: s.Layer.Name, Text: s.Text(), Line: s.Pos().Line,
		Record: b.sv.Plan.Keys.Record(s), At: time.Now().UTC(), AllForRoot: forRootAlone(s),
	}
	if !s.ChangesRoot() {
		return applied, nil, nothing, nil
	}
	var desc cache.Descriptor
	var packed io.Reader
	checked, leftOut := false, false
	if early != nil {
		desc, packed, applied.Verified = b.sv.Found[it.Key].Descriptor, early, early.Verified()
	} else {
		bl := b.blob(s)
		desc, packed, checked, leftOut = bl.desc, contents.NewReader(bl.reader()), bl.checked, bl.installedNothing
	}
	applied.Digest, applied.DiffID, applied.Size, applied.CRC32C = desc.Digest, desc.DiffID, desc.Size, desc.CRC32C
	applied.Entries, applied.Bytes, applied.Took = desc.Entries, desc.Bytes, desc.Took
	applied.LeftOut, applied.Needs, applied.On, applied.Placement = leftOut, desc.Needs, desc.On, b.placement(s, desc.Needs)
	applied.Frames = desc.Frames
	applied.Cutoff, applied.Second = desc.Cutoff, desc.ByContent()
	applied.Differs = b.differs(it)
	if it.State == dag.Cached && desc.Needs == nil && applied.Placement.Merge {
		b.Report.WarnOnce("some snapshots are of a version of clayer that did not record what a RUN needs of a machine: they are used wherever they are found, and of the users and packages in them those are added that this root lacks. " +
			"To build such a step again, and record it, change its key with # cache-bust")
	}
	if it.State == dag.Cached && !checked {
		c, changes, err = b.entries(ctx, it, desc, packed, b.root.Names())
		return applied, c, changes, err
	}
	return applied, nil, snapshot.ReadUnvalidated(packed), nil // the apply validates it
}

// Incomplete says that the root was changed in part; nil for no errors.
func Incomplete(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w wholly:\n  %w", ErrRoot, failure.Lines(errs))
}
