package exec

import (
	"context"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/report"
)

// A blob is the packed snapshot of a step, verified. It stays readable when the store
// removes it meanwhile: the file is open.
type blob struct {
	desc  cache.Descriptor
	bytes *cache.Blob

	installedNothing bool // it is put into no store
	checked          bool // all of it was read: it is the snapshot of its step
}

// reader returns the blob from its beginning. Several readers may be in use.
func (b *blob) reader() io.Reader { return io.NewSectionReader(b.bytes, 0, b.desc.Size) }

// restore brings the snapshots near and verifies them, several at a time: of
// all cached steps, and of steps that are present, but have to be laid over a
// view. One that is corrupt or gone turns its step, and what follows in its
// chain, into one to run; the plan is then made anew, and more may be needed.
func (b *builder) restore(ctx context.Context) error {
	for {
		if err := b.openSandbox(); err != nil {
			return err
		}
		if !b.direct() {
			b.planViews()
		}
		lost, err := b.restoreAll(ctx, b.needed())
		if err != nil || len(lost) == 0 {
			return err
		}
		b.lose(ctx, lost...)
	}
}

// lose takes back that the stores, or the root, have the keys, and plans anew.
// What is present behind one that is not has to be applied anew.
func (b *builder) lose(ctx context.Context, keys ...key.Key) {
	sv := b.sv
	sv.lose(keys...)
	var behind []key.Key
	cut := false
	for _, s := range order(sv.Plan.Graph) {
		switch here := sv.Answers.Present[s]; {
		case !here:
			cut = true
		case cut:
			behind = append(behind, sv.Plan.Keys.Step[s])
			delete(sv.Answers.Present, s)
		}
	}
	if len(behind) == 0 {
		return
	}
	found, err := b.Steps.Find(ctx, sv.Plan.Graph, sv.Plan.Keys, sv.Answers.Present)
	if err != nil {
		return // cancelled, which the next step says
	}
	for _, k := range behind {
		if d, ok := found[k]; ok {
			sv.Found[k] = d
			sv.Answers.Cached[k] = dag.Found{Store: d.Store, Size: d.Size}
		}
	}
	sv.lose()
}

// needed returns the items whose snapshots are needed and not there yet.
func (b *builder) needed() []*dag.Item {
	var items []*dag.Item
	for i := range b.sv.Plan.Layers {
		pl := &b.sv.Plan.Layers[i]
		for j := range pl.Items {
			if it := &pl.Items[j]; it.State == dag.Cached && b.blobs[it.Step] == nil {
				items = append(items, it)
			}
		}
	}
	for _, l := range b.order {
		for _, it := range b.inView(l) {
			if it.State == dag.Present && b.blobs[it.Step] == nil {
				items = append(items, it)
			}
		}
	}
	return items
}

func (b *builder) restoreAll(ctx context.Context, items []*dag.Item) (lost []key.Key, err error) {
	whole := ctx
	eg, ctx := errgroup.WithContext(whole)
	// Nothing but waiting: more at a time than what computes.
	eg.SetLimit(max(16, b.Jobs))
	// In order, and of large ones few: what comes first can be applied first,
	// where all at the same time would all be there at the end.
	room := semaphore.NewWeighted(largest)
	// Unpacking computes.
	checks := semaphore.NewWeighted(int64(b.Jobs))
	var mu sync.Mutex
	told := make([]error, len(items))
	for i, it := range items {
		size := min(b.sv.Found[it.Key].Size, largest)
		if err := room.Acquire(ctx, size); err != nil {
			break
		}
		eg.Go(func() error {
			release := sync.OnceFunc(func() { room.Release(size) })
			defer release()
			d, ok := b.sv.Found[it.Key]
			if !ok {
				d, ok = b.findOne(ctx, it)
			}
			metered, m := b.Report.Metered(ctx, report.Event{Kind: report.Restoring, Step: it.Step, Store: it.Found.Store, Total: d.Size})
			early := b.fetching[it.Step]
			bytes := early
			if early == nil {
				bytes = new(cache.Blob)
			} else { // once all of it is here, and only has to be verified, others may come
				arriving, stop := context.WithCancel(ctx)
				defer stop()
				go func() {
					if early.Wait(arriving, cache.Complete) == nil {
						release()
					}
				}()
			}
			err := error(cache.ErrNotCached)
			if ok {
				err = b.Store.Fetch(metered, d.Descriptor, bytes)
			}
			if err == nil && early == nil { // else it is checked while it is applied
				release() // it is here
				if err = checks.Acquire(ctx, 1); err == nil {
					err = b.check(ctx, it, d.Descriptor, bytes)
					checks.Release(1)
				}
			}
			if err == nil {
				b.setBlob(it.Step, &blob{desc: d.Descriptor, bytes: bytes, checked: early == nil})
				if it.State == dag.Cached {
					b.Report.Emit(report.Event{Kind: report.Restored, Step: it.Step, Store: it.Found.Store, Bytes: d.Size, Took: m.Took()})
				}
				return nil
			}
			bytes.Abort(err)
			bytes.Close()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			lost = append(lost, it.Key)
			if it.State == dag.Cached {
				told[i] = unusable(it, err)
			} else {
				b.Report.Warnf("%s: it is present, but a step before it has to run without it, and its snapshot is in no store; so it is built anew", it.Step.Pos())
			}
			return nil
		})
	}
	if err = eg.Wait(); err == nil {
		err = context.Cause(whole)
	}
	told = slices.DeleteFunc(told, func(err error) bool { return err == nil })
	switch n := len(told); {
	case n == 1:
		b.Report.Warnf("%v", told[0])
	case n > 1: // a store that dies takes them all
		b.Report.Warnf("%v (and %d more)", told[0], n-1)
	}
	return lost, err
}

// largest is how many bytes of snapshots come at a time, and one that is larger
// by itself: enough for many small ones to hide each other's round trips.
const largest = 64 << 20

// findOne asks the stores for the snapshot of a step that is present: the plan
// had no need to.
func (b *builder) findOne(ctx context.Context, it *dag.Item) (cache.Found, bool) {
	if b.Store == nil {
		return cache.Found{}, false
	}
	found, err := b.Store.Find(ctx, cache.Tag(it.Step.Layer.Name, b.sv.Plan.Keys.Layer[it.Step.Layer]), []key.Key{it.Key})
	d, ok := found[it.Key]
	return d, ok && err == nil
}

// prefetch starts the download of all sources that steps to run among the items
// need, so that they come while other things are done. The steps wait for them
// where they are used.
func (b *builder) prefetch(ctx context.Context, items []*dag.Item) {
	ctx, b.stopPrefetch = context.WithCancel(ctx)
	var eg errgroup.Group
	eg.SetLimit(b.Jobs)
	var steps []*dag.Step
	for _, it := range items {
		if src := it.Step.Source; src != nil && it.State == dag.ToRun && !slices.ContainsFunc(steps, func(s *dag.Step) bool { return s.Source == src }) {
			steps = append(steps, it.Step)
		}
	}
	b.prefetching.Go(func() {
		for _, s := range steps {
			eg.Go(func() error {
				// An error is the step's, which asks for the same again.
				_, _ = b.Steps.Changes(ctx, s)
				return nil
			})
		}
		_ = eg.Wait()
	})
}
