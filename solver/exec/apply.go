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
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/rootfs/record"
	"github.com/clayer/clayer/solver/source"
)

// buildAndApply restores what is cached, builds the rest, and then changes the root.
func (b *builder) buildAndApply(ctx context.Context, lock *rootfs.Lock) error {
	if err := b.restore(ctx); err != nil {
		return err
	}
	build, apply := b.build, b.apply
	if b.direct() {
		build = func(ctx context.Context) error { return b.buildDirect(ctx, lock) }
		apply = b.commit
	}
	if err := build(ctx); err != nil {
		b.wait() // what is finished is stored, whatever became of the rest
		return b.countStored(err)
	}
	// What is still being uploaded does not keep the root waiting.
	return apply(ctx, lock)
}

// apply makes the root what the plan wants, in one transaction: what is not at
// the beginning of the composition any more is undone, the last first, and the
// steps that are not present are applied, in composition order.
func (b *builder) apply(ctx context.Context, lock *rootfs.Lock) error {
	if err := b.applySteps(ctx, lock); err != nil {
		return err
	}
	return b.commit(ctx, lock)
}

// applySteps is apply without the commit.
func (b *builder) applySteps(ctx context.Context, lock *rootfs.Lock) error {
	if b.mustUndo(lock) || lock.State().Profile != nil { // which is the first to be undone
		if err := b.arriveFirst(ctx); err != nil {
			return err
		}
	}
	b.Report.Emit(report.Event{Kind: report.Applying, Text: b.root.Dir()})
	if err := b.undo(ctx, lock); err != nil {
		return err
	}
	for i := range b.sv.Plan.Layers {
		pl := &b.sv.Plan.Layers[i]
		for j := range pl.Items {
			if it := &pl.Items[j]; it.State != dag.Present {
				if err := b.applyStep(ctx, lock, it); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// commit makes lasting what was applied.
func (b *builder) commit(ctx context.Context, lock *rootfs.Lock) error {
	kept, err := b.Profile(ctx, lock)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	b.keep(kept...)
	if err := lock.Commit(b.sv.Platform, b.sv.Layers(), recordEnv(b.sv.Plan.Graph, len(b.sv.Plan.Layers))); err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	if len(b.incomplete) > 0 {
		b.sv.Incomplete = incomplete(b.incomplete)
	}
	return nil
}

// mustUndo reports whether something in the root has to go, or to be tried again.
func (b *builder) mustUndo(lock *rootfs.Lock) bool {
	return len(lock.State().Log) != Staying(b.sv.Plan.Graph, b.sv.Answers.Present) || lock.State().Retry()
}

// undo takes back the applies behind those that stay.
func (b *builder) undo(ctx context.Context, lock *rootfs.Lock) error {
	if !b.mustUndo(lock) {
		return nil
	}
	undone, err := lock.Undo(ctx, Staying(b.sv.Plan.Graph, b.sv.Answers.Present), b.Force)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	b.sv.Undone = len(undone.Steps)
	b.keep(undone.Preserved...)
	if b.direct() {
		// The next RUN takes care of it: its snapshot has what is there.
		b.dirty, undone.Lost = undone.Lost, nil
	}
	b.incomplete = append(b.incomplete, notUndone(undone)...)
	return nil
}

// keep tells which files stay as the user has them, each once.
func (b *builder) keep(kept ...rootfs.Preserved) {
	for _, k := range kept {
		if !slices.ContainsFunc(b.sv.Kept, func(x rootfs.Preserved) bool { return x.Path == k.Path }) {
			b.sv.Kept = append(b.sv.Kept, k)
			b.Report.Warnf("%s", PreservedText(k))
		}
	}
}

// complete lists the layers that are whole in the stores, with all their steps.
func (b *builder) complete(ctx context.Context) {
	if b.Store == nil || !b.Push {
		return
	}
	applied := make(map[key.Key]record.Applied)
	for _, l := range b.sv.State.Layers {
		for _, a := range l.Steps {
			applied[a.Key] = a
		}
	}
	for _, pl := range b.sv.Plan.Layers {
		if b.Steps.Unstored(pl.Layer) {
			continue
		}
		m := cache.Manifest{Name: pl.Layer.Name, Key: pl.Key, Platform: b.sv.Platform, Created: time.Now().UTC()}
		fresh, whole := false, true
		for _, it := range pl.Items {
			if !it.Step.ChangesRoot() {
				continue
			}
			if bl := b.blobs[it.Step]; bl != nil {
				whole = whole && !bl.installedNothing
				fresh = fresh || it.State != dag.Present
				m.Steps = append(m.Steps, bl.desc)
				continue
			}
			a := applied[it.Key]
			m.Steps = append(m.Steps, cache.Descriptor{
				Key: a.Key, Layer: pl.Layer.Name, Digest: a.Digest, Size: a.Size, CRC32C: a.CRC32C, DiffID: a.DiffID,
				Entries: a.Entries, Bytes: a.Bytes, Record: a.Record, Text: a.Text, Took: a.Took, Created: a.At,
			})
		}
		if !fresh || !whole {
			continue
		}
		// A store that lost a step of it, or never had it, lists no layer.
		_ = b.Store.Complete(ctx, m) // the store has told
	}
}

func (b *builder) applyStep(ctx context.Context, lock *rootfs.Lock, it *dag.Item) error {
	s := it.Step
	partial, err := b.comes(ctx, s)
	if err != nil {
		return err
	}
	var early *cache.Reader
	if partial != nil {
		early = partial.Reader(ctx)
		defer early.Close()
		ctx = early.Context()
	}
	applied, contents, changes, err := b.applied(ctx, it, early)
	if err != nil {
		return err
	}
	res, err := lock.Apply(ctx, applied, changes)
	if err != nil && early != nil {
		if lost := early.Wait(); lost != nil {
			return lost
		}
	}
	if err == nil && contents != nil {
		if err = b.arrive(ctx, s); err == nil {
			b.mu.Lock()
			blob := b.blobs[s].bytes
			b.mu.Unlock()
			err = contents.CheckTable(blob)
		}
	}
	if bad, ok := invalid(it, err); ok {
		return bad
	}
	for _, p := range res.Preserved {
		b.keep(rootfs.Preserved{Path: p, Why: "changed since"})
	}
	for _, p := range res.Problems {
		b.incomplete = append(b.incomplete, fmt.Errorf("%s: /%s: %w", s.Pos(), p.Path, p.Err))
	}
	var fault *source.Fault
	if err = misplaced(s, err); errors.As(err, &fault) {
		return b.failure(s, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: apply %s: %w", ErrRoot, s.Pos(), it.Key.Short(), err)
	}
	b.Report.Emit(report.Event{Kind: report.Applied, Step: s, Entries: res.Entries, Bytes: res.Bytes})
	return nil
}

// applied is what is recorded of an item, and its changes: early is its snapshot,
// where that is not all there yet. What a store had is checked while it is read.
func (b *builder) applied(ctx context.Context, it *dag.Item, early *cache.Reader) (applied record.Applied, c *cache.Contents, changes snapshot.Changes, err error) {
	s := it.Step
	applied = record.Applied{
		Key: it.Key, Layer: s.Layer.Name, Text: s.Text(), Line: s.Pos().Line,
		Record: b.sv.Plan.Keys.Record(s), At: time.Now().UTC(), Placement: b.placement(s),
	}
	if !s.ChangesRoot() {
		return applied, nil, nothing, nil
	}
	var desc cache.Descriptor
	var packed io.Reader
	checked := false
	if early != nil {
		desc, packed, applied.Verified = b.sv.Found[it.Key].Descriptor, early, early.Verified()
	} else {
		b.mu.Lock()
		bl := b.blobs[s]
		b.mu.Unlock()
		desc, packed, checked = bl.desc, bl.reader(), bl.checked
	}
	applied.Digest, applied.DiffID, applied.Size, applied.CRC32C = desc.Digest, desc.DiffID, desc.Size, desc.CRC32C
	applied.Entries, applied.Bytes, applied.Took = desc.Entries, desc.Bytes, desc.Took
	if it.State == dag.Cached && !checked {
		c, changes, err = b.entries(ctx, it, desc, packed)
		return applied, c, changes, err
	}
	return applied, nil, snapshot.ReadUnvalidated(packed), nil // the apply validates it
}

// NotUndone returns what an undo could not restore, as one error; nil for nothing.
func NotUndone(u *rootfs.Undone) error {
	if errs := notUndone(u); len(errs) > 0 {
		return incomplete(errs)
	}
	return nil
}

// incomplete says that the root was changed in part.
func incomplete(errs []error) error { return fmt.Errorf("%w wholly:\n  %w", ErrRoot, joinLines(errs)) }

func notUndone(u *rootfs.Undone) []error {
	var errs []error
	for _, p := range u.Problems {
		errs = append(errs, fmt.Errorf("/%s: %w", p.Path, p.Err))
	}
	for _, p := range u.Lost {
		errs = append(errs, fmt.Errorf("/%s: what stood there before can't come back: the step ran on the root itself", p))
	}
	return errs
}

// PreservedText says that a file stays as the user has it.
func PreservedText(k rootfs.Preserved) string {
	return fmt.Sprintf("kept /%s: %s; --force takes it too", k.Path, k.Why)
}
