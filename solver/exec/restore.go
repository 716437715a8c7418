package exec

import (
	"context"
	"errors"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/exec/internal/flow"
	"github.com/clayer/clayer/solver/internal/variants"
	"github.com/clayer/clayer/solver/report"
)

func (b *builder) Partial(it *dag.Item) bool {
	if _, ok := b.sv.Found[it.Key]; !ok || it.State != dag.Cached {
		return false
	}
	if b.fetching == nil {
		b.fetching = make(map[*dag.Step]*cache.Blob)
	}
	b.fetching[it.Step] = new(cache.Blob)
	return true
}

func (b *builder) Abort(s *dag.Step, err error) {
	if bytes := b.fetching[s]; bytes != nil {
		bytes.Abort(err)
		bytes.Close()
	}
}

// Fetch fetches the snapshot of an item, and verifies it. What it says is checked
// afterwards, or while it is applied.
func (b *builder) Fetch(ctx context.Context, it *dag.Item, readable, whole func()) error {
	d, ok := b.sv.Found[it.Key]
	if !ok {
		d, ok = b.findOne(ctx, it)
	}
	if !ok {
		return cache.ErrNotCached
	}
	if has := b.sv.Applied(it.Key).Digest; it.State == dag.Present && d.Digest != has {
		if d, ok = b.variants.Find(ctx, b.sv, it.Step, has); !ok {
			return flow.ErrOther // of what is built on it, the view would have one, and the root the other
		}
	}
	metered, m := b.Report.Metered(ctx, report.Event{Kind: report.Restoring, Step: it.Step, Store: it.Found.Store, Total: d.Size})
	early := b.fetching[it.Step]
	bytes := early
	if early == nil {
		bytes = new(cache.Blob)
	} else {
		arriving, stop := context.WithCancel(ctx)
		defer stop()
		go func() {
			if early.Wait(arriving, cache.Partial) == nil {
				readable()
			}
			if early.Wait(arriving, cache.Complete) == nil {
				whole() // what only has to be verified delays no other
			}
		}()
	}
	if err := b.Store.Fetch(metered, d.Descriptor, bytes); err != nil {
		if early == nil {
			bytes.Close()
		}
		return err
	}
	bl := &blob{desc: d.Descriptor, bytes: bytes, took: m.Took(), moved: m.Moved(d.Size)}
	b.setBlob(it.Step, bl)
	if early != nil {
		b.restored(it, bl)
	}
	return nil
}

func (b *builder) restored(it *dag.Item, bl *blob) {
	if it.State == dag.Cached {
		b.Report.Emit(report.Event{Kind: report.Restored, Step: it.Step, Store: it.Found.Store, Bytes: bl.desc.Size, Moved: bl.moved, Took: bl.took})
	}
}

// check reads all of a snapshot that was fetched: see validate.
func (b *builder) Check(ctx context.Context, it *dag.Item) error {
	bl := b.blob(it.Step)
	if err := b.validate(ctx, it, bl.desc, bl.bytes); err != nil {
		b.Forget(it.Step)
		return err
	}
	bl.checked = true
	b.restored(it, bl)
	return nil
}

// Lost reports that the snapshot of an item cannot be had. Of those that were cached
// the error is returned: a store that dies takes them all.
func (b *builder) Lost(it *dag.Item, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if it.State == dag.Cached {
		if b.variants.Note(it.Key, b.sv.Found[it.Key], err) {
			return nil // Choose reports it
		}
		if variants.IsGone(err) {
			b.sv.Again[it.Step] = b.sv.Found[it.Key].DiffID
		}
		return unusable(it, err)
	}
	pos := it.Step.Pos()
	switch {
	case errors.Is(err, flow.ErrOther):
		b.Report.Warnf("%s: it is present, but its snapshot in the stores is another one, which is applied instead", pos)
	case errors.Is(err, cache.ErrNotCached):
		b.Report.Warnf("%s: it is present, but a step before it has to run without it, and its snapshot is in no store; so it is built again", pos)
	default:
		b.Report.Warnf("%s: it is present, but others have to be built on it, and its snapshot can't be used; so it is built again: %v", pos, err)
	}
	return nil
}

// Choose chooses other snapshots for those that are lost because the root lacks what they
// need, and returns the keys of those that have none.
func (b *builder) Choose(ctx context.Context, keys []key.Key) ([]key.Key, error) {
	lost, warnings, err := b.variants.Choose(ctx, b.sv, keys)
	b.ReportLost(warnings)
	return lost, err
}

func (b *builder) Replanned() {
	b.Report.Emit(report.Event{Kind: report.Planned, Plan: b.sv.Plan})
}

func (b *builder) ReportLost(lost []error) {
	var first error
	n := 0
	for _, err := range lost {
		if err != nil {
			if n++; first == nil {
				first = err
			}
		}
	}
	switch {
	case n == 1:
		b.Report.Warnf("%v", first)
	case n > 1:
		b.Report.Warnf("%v (and %d more)", first, n-1)
	}
}
