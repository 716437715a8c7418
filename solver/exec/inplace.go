package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec/internal/flow"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/internal/scratch"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
)

// Building in place: RUN changes the root itself, so that building and applying
// are one, step by step in composition order. Removed steps are undone first; a
// step that has a snapshot is applied at its turn; a RUN is adopted: its changes
// are there already.

// EnterRoot begins: it undoes what has to leave the root.
func (b *builder) EnterRoot(ctx context.Context) error {
	b.root = b.lock.Root() // what a RUN moves is reached by what it is
	if err := b.storedSteps(ctx); err != nil {
		return err
	}
	b.inPlace = b.sb.InPlace()
	if err := b.Undo(ctx); err != nil {
		return err
	}
	b.leadDests(ctx)
	if n := len(b.dirty); n > 0 {
		b.Report.Warnf("what steps that ran in place changed of others' files cannot be undone, %s", running.Paths(b.dirty))
	}
	return nil
}

// storedSteps returns an error if a step is to run that only a store can give: before what
// precedes it is in the root for good.
func (b *builder) storedSteps(ctx context.Context) error {
	for i := range b.sv.Plan.Layers {
		for _, it := range b.sv.Plan.Layers[i].Items {
			run, ok := it.Step.Instr.(*frontend.Run)
			if !ok || run.Stored == nil || it.State != dag.ToRun {
				continue
			}
			if _, _, err := b.Steps.Command(ctx, &it, run, true); err != nil {
				return b.failure(it.Step, err)
			}
		}
	}
	return nil
}

// leaveRoot closes what enterRoot opened, and removes the scratch that steps left.
func (b *builder) leaveRoot() {
	if b.inPlace != nil {
		b.inPlace.Close()
		b.inPlace = nil
		b.leaveScratch()
	}
}

// StepInPlace runs a step on the root, or applies it. Before a RUN, what was done so
// far is committed: it cannot be rolled back after that.
func (b *builder) StepInPlace(ctx context.Context, it *dag.Item) (flow.Outcome, error) {
	i := b.layerIndex(it.Step.Layer)
	pl := &b.sv.Plan.Layers[i]
	if i > 0 && pl.Layer.On != b.sv.Plan.Layers[i-1].Layer && survey.RunsIn(pl) {
		b.Report.WarnOnce("%s: in place its RUN sees all layers that are composed before it, not only what it builds on", pl.Layer.Name)
	}
	if it.State != dag.ToRun || !it.Step.LooksAtRoot() || b.reuse(ctx, it.Step) {
		out, err := b.makeOrCheck(ctx, it)
		if err == nil {
			err = b.Apply(ctx, it)
		}
		if err == nil {
			err = b.Verify(ctx, it)
		}
		b.inPlace.Stale()
		return out, err
	}
	if err := b.commitBefore(it); err != nil {
		return flow.Outcome{}, err
	}
	if b.Watched == nil {
		if err := b.enterScratch(ctx, it); err != nil {
			return flow.Outcome{}, err
		}
		if err := b.lock.SaveDatabases(); err != nil {
			return flow.Outcome{}, fmt.Errorf("%w: save the databases: %w", ErrRoot, err)
		}
	}
	b.tx = b.lock.State().Tx
	out, recorded, err := b.adopt(ctx, it)
	if !recorded {
		return out, err // what is known of the RUN stays for the next command
	}
	if err = errors.Join(err, b.forgetRun()); err != nil {
		err = errors.Join(err, b.commitBefore(it))
	}
	return out, err
}

func (b *builder) layerIndex(l *dag.Layer) int {
	return slices.IndexFunc(b.sv.Plan.Layers, func(pl dag.PlannedLayer) bool { return pl.Layer == l })
}

// commitBefore commits the steps before an item, with the variables of the layers
// before its own.
func (b *builder) commitBefore(it *dag.Item) error { return b.commitPart(it, false) }

func (b *builder) CommitInPlace(it *dag.Item) error { return b.commitPart(it, true) }

func (b *builder) commitPart(it *dag.Item, with bool) error {
	n := b.layerIndex(it.Step.Layer)
	layers := b.sv.Layers()[:n+1]
	keys := layers[n].Steps
	end := slices.Index(keys, it.Key)
	if with {
		end++
	}
	layers[n].Steps = keys[:end:end]
	if err := b.lock.Commit(b.sv.Platform, layers, survey.Env(b.sv.Plan.Graph, n)); err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return nil
}

// adopt runs a step on the root itself and records what it did there. What one
// that fails did is recorded too, as of no step: the next solve undoes what
// of it was created, and captures the rest. It reports whether all is recorded
// that was done.
func (b *builder) adopt(ctx context.Context, it *dag.Item) (out flow.Outcome, recorded bool, err error) {
	lock, view := b.lock, b.inPlace
	b.failed, b.running = nil, false
	out, err = b.step(ctx, it.Step, func(ctx context.Context, s *dag.Step, pack packer) error {
		return b.look(ctx, view, s, pack)
	})
	// What is done is recorded, also when the solve was cancelled meanwhile.
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		recorded, err = b.adoptFailed(ctx, lock, it, view, err)
		return out, recorded, err
	}
	applied, _, changes, err := b.applied(ctx, it, nil)
	if err != nil {
		return out, false, err
	}
	applied.Before, applied.Original = view.Before, view.Original
	if in, ok := it.Step.Instr.(*frontend.Snapshot); ok {
		if len(scratch.Below(in.Path)) > 0 {
			return out, true, b.applyCaptured(ctx, it, applied, changes)
		}
		changes = nothing // it only looked
	}
	res, err := lock.Adopt(ctx, applied, changes)
	if err != nil {
		return out, false, fmt.Errorf("%w: %s: record %s: %w", ErrRoot, it.Step.Pos(), it.Key.Short(), err)
	}
	if res.Scratch {
		b.scratch[it.Step], b.scratchIn = true, append(b.scratchIn, it.Step)
	}
	if err := b.stillDirty(it); err != nil {
		return out, false, err
	}
	b.Report.Emit(report.Event{Kind: report.Applied, Step: it.Step, Entries: b.blob(it.Step).desc.Entries, Bytes: b.blob(it.Step).desc.Bytes})
	return out, true, nil
}

// stillDirty removes from the dirty paths those that a step's snapshot has.
func (b *builder) stillDirty(it *dag.Item) error {
	if len(b.dirty) == 0 {
		return nil
	}
	reported := make(map[string]bool)
	for e, err := range snapshot.Read(b.blob(it.Step).reader()) {
		if err != nil {
			return err
		}
		reported[e.Path] = true
	}
	b.dirty = slices.DeleteFunc(b.dirty, func(p string) bool { return reported[p] })
	return nil
}

// forgetRun says that the RUN that was announced is over, and its record committed.
func (b *builder) forgetRun() error {
	if !b.running {
		return nil
	}
	b.running = false
	return running.Forget(b.root)
}

func (b *builder) adoptFailed(ctx context.Context, lock *rootfs.Lock, it *dag.Item, view sandbox.InPlace, failed error) (recorded bool, err error) {
	if b.failed == nil {
		return !b.running, failed
	}
	run := running.Run{Layer: it.Step.Layer.Name, Text: it.Step.Text(), Line: it.Step.Pos().Line}
	did, err := run.Adopt(ctx, lock, view, b.failed)
	if err != nil {
		return false, errors.Join(failed, fmt.Errorf("%w: record what the step did: %w", ErrRoot, err))
	}
	text := "it ran on the root itself and changed nothing there"
	if len(did) > 0 {
		text = fmt.Sprintf("it ran on the root itself and changed %s there: the next solve, or undo, takes back what it created", running.Paths(did))
	}
	var be *BuildError
	if errors.As(failed, &be) {
		be.Did = text
	} else {
		b.Report.Warnf("%s: %s", it.Step.Pos(), text)
	}
	return true, failed
}
