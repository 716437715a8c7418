package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
)

// Building in place: RUN changes the root itself, so that building and applying
// are one, step by step in composition order. What fell away is undone first;
// a step that is cached, or brings files, is applied at its turn; a RUN is
// adopted: its changes are there already. Before each RUN, and after it, what
// was done so far is committed: it can't be taken back any more.

// buildDirect makes the root what the plan wants, all but the last commit.
func (b *builder) buildDirect(ctx context.Context, lock *rootfs.Lock) error {
	// What a RUN moves is reached by what it is.
	unheld := b.root
	b.lock, b.root = lock, lock.Root()
	defer func() { b.root = unheld }()
	if err := b.bringNow(ctx); err != nil {
		return err
	}
	direct := b.sb.InPlace()
	defer direct.Close()

	b.Report.Emit(report.Event{Kind: report.Applying, Text: b.root.Dir()})
	if err := b.undo(ctx, lock); err != nil {
		return err
	}
	if n := len(b.dirty); n > 0 {
		b.Report.Warnf("what steps that ran in place changed of others' files can't be taken back, %s: the next RUN's snapshot has them as they are", paths(b.dirty))
	}
	done := make(map[key.Key]bool)
	for i := range b.sv.Plan.Layers {
		pl := &b.sv.Plan.Layers[i]
		if i > 0 && pl.Layer.On != b.sv.Plan.Layers[i-1].Layer && runs(pl) {
			b.Report.WarnOnce("%s: in place its RUN sees all layers that are composed before it, not only what it builds on", pl.Layer.Name)
		}
		for j := range pl.Items {
			it := &b.sv.Plan.Layers[i].Items[j] // it may be planned anew meanwhile
			switch {
			case it.State == dag.Present:
			case it.State == dag.ToRun && looksAtRoot(it.Step):
				if err := b.partial(lock, done, i); err != nil {
					return err
				}
				b.tx = lock.State().Tx
				recorded, err := b.adopt(ctx, lock, it, direct)
				if !recorded {
					return err // what is known of the RUN stays for the next command
				}
				if err = errors.Join(err, b.forgetRun()); err != nil {
					return errors.Join(err, b.partial(lock, done, i))
				}
				if b.reconsider() {
					if err := b.bringNow(ctx); err != nil {
						done[it.Key] = true
						return errors.Join(err, b.partial(lock, done, i))
					}
				}
			default:
				if err := b.applyStep(ctx, lock, it); err != nil {
					return err
				}
				direct.Stale()
			}
			done[it.Key] = true
		}
	}
	return ctx.Err()
}

// bringNow makes the snapshots of what is to be fetched or copied.
func (b *builder) bringNow(ctx context.Context) error {
	var s schedule
	b.bringAll(&s)
	return s.run(ctx, b.Jobs)
}

func runs(pl *dag.PlannedLayer) bool {
	for _, it := range pl.Items {
		if it.State == dag.ToRun && looksAtRoot(it.Step) {
			return true
		}
	}
	return false
}

// partial commits the steps that are done, with the variables of the layers
// before the n-th.
func (b *builder) partial(lock *rootfs.Lock, done map[key.Key]bool, n int) error {
	layers := b.sv.Layers()
	for i := range layers {
		var keys []key.Key
		for _, k := range layers[i].Steps {
			if done[k] {
				keys = append(keys, k)
			}
		}
		layers[i].Steps = keys
	}
	layers = layers[:n+1]
	if err := lock.Commit(b.sv.Platform, layers, recordEnv(b.sv.Plan.Graph, n)); err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return nil
}

// adopt runs a step on the root itself and records what it did there. What one
// that fails did is recorded too, as of no step: the next solve takes back what
// of it was created, and captures the rest. It reports whether all is recorded
// that was done.
func (b *builder) adopt(ctx context.Context, lock *rootfs.Lock, it *dag.Item, view sandbox.InPlace) (recorded bool, err error) {
	b.failed, b.running = nil, false
	err = b.step(ctx, it.Step, func(ctx context.Context, s *dag.Step, pack func(snapshot.Changes) error) error {
		return b.look(ctx, view, s, pack)
	})
	// What is done is recorded, also when the solve was cancelled meanwhile.
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		return b.adoptFailed(ctx, lock, it, view, err)
	}
	applied, _, changes, err := b.applied(ctx, it, nil)
	if err != nil {
		return false, err
	}
	applied.Before = view.Before
	if _, ok := it.Step.Instr.(*frontend.Snapshot); ok {
		changes = nothing // it only looked
	}
	if _, err := lock.Adopt(ctx, applied, changes); err != nil {
		return false, fmt.Errorf("%w: %s: record %s: %w", ErrRoot, it.Step.Pos(), it.Key.Short(), err)
	}
	if err := b.stillDirty(it); err != nil {
		return false, err
	}
	b.Report.Emit(report.Event{Kind: report.Applied, Step: it.Step, Entries: b.blobs[it.Step].desc.Entries, Bytes: b.blobs[it.Step].desc.Bytes})
	return true, nil
}

// stillDirty takes from the dirty paths those that a step's snapshot tells.
func (b *builder) stillDirty(it *dag.Item) error {
	if len(b.dirty) == 0 {
		return nil
	}
	told := make(map[string]bool)
	for e, err := range snapshot.Read(b.blobs[it.Step].reader()) {
		if err != nil {
			return err
		}
		told[e.Path] = true
	}
	b.dirty = slices.DeleteFunc(b.dirty, func(p string) bool { return told[p] })
	return nil
}

func (b *builder) adoptFailed(ctx context.Context, lock *rootfs.Lock, it *dag.Item, view sandbox.InPlace, failed error) (recorded bool, err error) {
	if b.failed == nil {
		return !b.running, failed
	}
	did, err := adoptFailed(ctx, lock, &interrupted{Layer: it.Step.Layer.Name, Text: it.Step.Text(), Line: it.Step.Pos().Line}, view, b.failed)
	if err != nil {
		return false, errors.Join(failed, fmt.Errorf("%w: record what the step did: %w", ErrRoot, err))
	}
	text := "it ran on the root itself and changed nothing there"
	if len(did) > 0 {
		text = fmt.Sprintf("it ran on the root itself and changed %s there: the next solve, or undo, takes back what it created", paths(did))
	}
	var be *BuildError
	if errors.As(failed, &be) {
		be.Did = text
	} else {
		b.Report.Warnf("%s: %s", it.Step.Pos(), text)
	}
	return true, failed
}

// paths counts paths of a root, and names some.
func paths(list []string) string {
	const most = 3
	n := len(list)
	text := "/" + strings.Join(list[:min(n, most)], ", /")
	if n > most {
		text = fmt.Sprintf("%d paths, %s and others", n, text)
	}
	return printable.Line(text)
}
