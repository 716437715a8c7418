package exec

import (
	"context"
	"errors"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/exec/internal/contents"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/variants"
	"github.com/clayer/clayer/solver/report"
)

// Late cut-off: a step that is to run, since one before it runs, is restored after all if
// what those made is what it was built on.

// cutoff returns the second key of a step; the zero Key if it has none, or if one before it
// made what no other machine may take for the same.
func (b *builder) cutoff(s *dag.Step) key.Key {
	if b.Steps.Unstored(s.Layer) {
		return key.Key{}
	}
	keys := b.sv.Plan.Keys
	return keys.Cutoff(s, keys.Until(s, b.whatMade))
}

// A madeBy is what a step made, as a snapshot says it.
type madeBy struct {
	bl *blob
	m  dag.Made
}

// whatMade returns what a step before another one made. It is asked for many times.
func (b *builder) whatMade(s *dag.Step) dag.Made {
	b.mu.Lock()
	bl, known := b.blobs[s], b.known[s]
	b.mu.Unlock()
	if known.m != (dag.Made{}) && known.bl == bl {
		return known.m
	}
	known = madeBy{bl: bl}
	switch it := b.sv.Plan.Item(s); {
	case it.State != dag.ToRun:
		known.m = b.sv.Made(s, b.sv.Plan.Keys)
	case bl == nil || b.differs(it) || b.identity.Refused(s):
	case bl.installedNothing:
		known.m = dag.Made{LeftOut: true}
	default:
		known.m = dag.Made{DiffID: bl.desc.DiffID}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known[s] = known
	return known.m
}

// reuse restores a step that is to run, if a store has it by its second key. false: it runs.
func (b *builder) reuse(ctx context.Context, s *dag.Step) bool {
	it := b.sv.Plan.Item(s)
	if !it.MayMatch || b.Store == nil || b.Rebuild || b.Watched != nil {
		return false
	}
	k := b.cutoff(s)
	if k.IsZero() {
		return false
	}
	for f := range b.Steps.ByContent(ctx, b.sv.Plan.Keys, s, k) {
		bl, err := b.fetchByContent(ctx, it, f)
		if err == nil {
			b.setBlob(s, bl)
			b.mu.Lock()
			b.did.Reused[s] = true
			b.mu.Unlock()
			b.Report.Emit(report.Event{Kind: report.Restored, Step: s, Store: f.Store, Bytes: f.Size, Moved: bl.moved, Took: bl.took})
			return true
		}
		if !errors.As(err, new(*variants.UnmetError)) { // then another one may do
			if ctx.Err() == nil {
				b.Report.Warnf("%v", unusable(it, err))
			}
			break
		}
	}
	return false
}

// reused reports whether reuse has restored a step.
func (b *builder) reused(s *dag.Step) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.did.Reused[s]
}

// fetchByContent fetches a snapshot, and checks it as one that was cached in the plan.
func (b *builder) fetchByContent(ctx context.Context, it *dag.Item, f cache.Found) (_ *blob, err error) {
	s := it.Step
	at, err := b.namesBefore(s)
	if err == nil {
		err = needs.Check(f.Needs)
	}
	if err != nil {
		return nil, err
	}
	if unmet, err := b.site(s, at).Unmet(f.Needs); err != nil {
		return nil, err
	} else if unmet != "" {
		return nil, &variants.UnmetError{Lacks: unmet}
	}
	metered, m := b.Report.Metered(ctx, report.Event{Kind: report.Restoring, Step: s, Store: f.Store, Total: f.Size})
	bl := &blob{desc: f.Descriptor, bytes: new(cache.Blob), checked: true}
	defer func() {
		if err != nil {
			bl.bytes.Close()
		}
	}()
	if err = b.Store.Fetch(metered, f.Descriptor, bl.bytes); err != nil {
		return nil, err
	}
	bl.took, bl.moved = m.Took(), m.Moved(f.Size)
	if err = b.validate(ctx, it, f.Descriptor, bl.bytes); err != nil || !s.IsPlaced() {
		return bl, err
	}
	at.Entered()
	expected, err := b.Steps.Expected(ctx, s, at, true)
	if asked := b.asksScratch(at, s); asked != nil {
		err = asked
	}
	if err == nil {
		err = contents.Meets(expected, bl.entries())
	}
	return bl, err
}
