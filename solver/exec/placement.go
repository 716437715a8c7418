package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec/internal/contents"
	"github.com/clayer/clayer/solver/exec/internal/flow"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/scratch"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/internal/unpack"
	"github.com/clayer/clayer/solver/source"
)

// placement says what the snapshot of a step must not replace: no COPY or FETCH removes a
// directory to put a file there. What a
// RUN replaced is what its command did; but what it changed in databases is merged, by
// the needs of its snapshot. Of those in a SNAPSHOT the root gets the records it lacks.
func (b *builder) placement(s *dag.Step, needs []cache.Need) (p record.Placement) {
	if b.Steps.Unstored(s.Layer) {
		return record.Placement{}
	}
	switch in := s.Instr.(type) {
	case *frontend.Copy:
		p.ProtectDirs = true
	case *frontend.Fetch:
		p.ProtectDirs, p.File = true, source.PlainFile(in)
	case *frontend.Run, *frontend.Snapshot:
		p.Merge = true
		for _, n := range needs {
			if _, known := databases.Known(n.Path); known && n.Kind == snapshot.NeedContent || n.Kind == snapshot.NeedAlternative {
				p.Databases = append(p.Databases, n)
			}
		}
	}
	return p
}

// misplaced explains that a file of a step would replace a directory; any other
// error is returned as it is.
func misplaced(err error) error {
	if dir := (*unpack.DirError)(nil); errors.As(err, &dir) {
		return source.ReplacesDir(dir.Path, err)
	}
	return err
}

// chainNames are the names that the steps of a layer find, as far as they were asked for.
type chainNames struct {
	view *names.View
	done []key.Key // the steps that are in the view, and were not in the root
}

// namesBefore returns the names that a step finds in the root. All steps before it are
// built, or on this machine, and it is asked for by one step of a layer at a time.
func (b *builder) namesBefore(at *dag.Step) (*names.View, error) {
	if b.isInPlace() {
		return b.namesInPlace(at)
	}
	items := b.sv.Before(at)
	stay, revert := b.sv.Lower(items)
	items = slices.DeleteFunc(items, func(it *dag.Item) bool { return stay[it.Key] && !b.Has(it.Step) })
	b.mu.Lock()
	c := b.names[at.Layer]
	b.mu.Unlock()
	if c == nil || !begins(items, c.done) {
		c = &chainNames{view: b.root.Names()}
		err := b.revertNames(c.view, revert)
		if err == nil {
			err = scratch.Hide(c.view)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: read what was before: %w", ErrRoot, err)
		}
	}
	for _, it := range items[len(c.done):] {
		if err := b.addNames(c.view, it, stay[it.Key], at.Layer); err != nil {
			return nil, fmt.Errorf("%s: read its names: %w", it.Step.Pos(), err)
		}
		c.done = append(c.done, it.Key)
	}
	b.mu.Lock()
	b.names[at.Layer] = c
	b.mu.Unlock()
	return c.view, nil
}

// namesInPlace is namesBefore where the root has what is before a step, but for scratch.
func (b *builder) namesInPlace(at *dag.Step) (*names.View, error) {
	view := b.root.Names()
	if err := scratch.Hide(view); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	for _, s := range b.scratchBefore(at) {
		if bl := b.blob(s); bl != nil {
			if err := view.Add(snapshot.Scratch(bl.entries())); err != nil {
				return nil, fmt.Errorf("%s: read its names: %w", s.Pos(), err)
			}
		}
	}
	return view, nil
}

// begins reports whether items begin with those of the keys.
func begins(items []*dag.Item, keys []key.Key) bool {
	return len(keys) <= len(items) && slices.EqualFunc(items[:len(keys)], keys, func(it *dag.Item, k key.Key) bool { return it.Key == k })
}

// findsRoot reports whether a step finds the root as it is when its turn to be applied has
// come: it builds on all that is applied before, and none of that is scratch, or hidden
// in a root below.
func (b *builder) findsRoot(s *dag.Step) bool {
	return !b.root.IsLayered() && b.sv.BuildsOnAll(s.Layer) && !survey.PlacesScratch(s)
}

// revertNames has names show what the root had before events, the last of its log, and
// nothing of what those before them have deleted in a root below.
func (b *builder) revertNames(view *names.View, events []record.Event) error {
	log := b.sv.State.Log
	stay := log[:len(log)-len(events)]
	if len(events) == 0 && len(record.Hidden(stay)) == 0 {
		return nil
	}
	changes, err := b.root.Revert(stay, events)
	if err != nil {
		return err
	}
	return view.Add(changes)
}

// madeNames returns what all steps have made, none of which is present.
func (b *builder) madeNames() (*names.Made, error) {
	steps, base := new(names.View), b.root.Names()
	items := b.sv.Before(nil)
	_, revert := b.sv.Lower(items)
	if err := b.revertNames(base, revert); err != nil {
		return nil, fmt.Errorf("%w: read what was before: %w", ErrRoot, err)
	}
	for _, it := range items {
		if err := b.addNames(steps, it, false, items[len(items)-1].Step.Layer); err != nil {
			return nil, fmt.Errorf("%s: read its names: %w", it.Step.Pos(), err)
		}
	}
	return names.NewMade(steps, base), nil
}

// addNames adds what a step makes to the names that a layer finds; of one that the root
// shows, its scratch alone.
func (b *builder) addNames(view *names.View, it *dag.Item, inRoot bool, to *dag.Layer) error {
	bl := b.blob(it.Step)
	if bl == nil {
		return errors.New("its snapshot was not fetched")
	}
	changes, ok := bl.names.Changes()
	if !ok {
		changes = bl.entries()
	}
	seen := survey.SeesScratchOf(to, it.Step.Layer)
	switch {
	case inRoot && !seen:
		return nil
	case inRoot:
		changes = snapshot.Scratch(changes)
	case !seen:
		changes = snapshot.ForRoot(changes, nil)
	}
	return view.AddNames(changes, bl.entries())
}

// asksScratch returns flow.ErrScratch where a path of a step, which was just placed, led to
// scratch of a step before that is not on this machine.
func (b *builder) asksScratch(at *names.View, s *dag.Step) error {
	if at.Entered() && slices.ContainsFunc(b.scratchBefore(s), func(s *dag.Step) bool { return !b.Has(s) }) {
		return flow.ErrScratch
	}
	return nil
}

// PlacedHere returns an error where a cached step needs what the root lacks that it finds
// here, or where the snapshot of a FETCH, COPY or WORKDIR is not what it makes of that.
func (b *builder) PlacedHere(ctx context.Context, it *dag.Item) error {
	at, err := b.namesBefore(it.Step)
	if err != nil {
		return err
	}
	at.Entered()
	var expected source.Expectation
	if err = b.unmetHere(it, at); err == nil && it.Step.IsPlaced() {
		expected, err = b.Steps.Expected(ctx, it.Step, at, true)
	}
	if asked := b.asksScratch(at, it.Step); asked != nil {
		return asked
	}
	if err == nil {
		err = contents.Meets(expected, b.blob(it.Step).entries())
	}
	if err != nil && ctx.Err() == nil {
		b.Forget(it.Step)
	}
	return err
}

// makeOrCheck makes a FETCH, COPY or WORKDIR that is to run, or checks that a cached one
// fits, where all before it is done.
func (b *builder) makeOrCheck(ctx context.Context, it *dag.Item) (flow.Outcome, error) {
	switch {
	case !it.Step.IsPlaced() && !b.sv.ChecksLate(it):
	case it.State == dag.ToRun && !b.Has(it.Step):
		return b.Make(ctx, it.Step)
	case it.State == dag.Cached:
		if err := b.PlacedHere(ctx, it); err != nil {
			if ctx.Err() == nil {
				err = &flow.MisplacedError{Err: err}
			}
			return flow.Outcome{}, err
		}
	}
	return flow.Outcome{}, nil
}
