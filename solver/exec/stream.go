package exec

import (
	"context"
	"errors"
	"fmt"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver/rootfs"
)

// stream restores and applies at the same time, where nothing is to run: each
// snapshot is applied when those before it are, while the next ones come. The first
// that is not there yet is read while it comes: all of it is made ready that can be
// without touching the root, which has to wait until the snapshot is verified. It
// reports false if that can't be, and the root is as it was: something is to run,
// or a snapshot could not be had, and then its step is one to run now.
func (b *builder) stream(ctx context.Context, lock *rootfs.Lock) (applied bool, err error) {
	if err := b.openSandbox(); err != nil || b.direct() || b.toRun() {
		return false, err
	}
	b.planViews()
	items := b.needed()
	b.arrived = make(map[*dag.Step]chan struct{}, len(items))
	b.fetching = make(map[*dag.Step]*cache.Blob, len(items))
	for _, it := range items {
		b.arrived[it.Step] = make(chan struct{})
		if _, ok := b.sv.Found[it.Key]; ok && it.State == dag.Cached {
			b.fetching[it.Step] = new(cache.Blob)
		}
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	failed := false // applying has, for reasons of its own
	go func() {
		err := b.applySteps(running, lock)
		// A snapshot that was lost on its way is nobody's failure: it, or what follows
		// from its loss, is seen to by whoever brings it.
		if failed = err != nil && running.Err() == nil && !errors.Is(err, cache.ErrAborted); failed {
			cancel()
		}
		done <- err
	}()
	lost, err := b.restoreAll(running, items)
	if err != nil || len(lost) > 0 {
		cancel()
	}
	applyErr := <-done
	b.arrived, b.fetching = nil, nil
	var bad *invalidSnapshot
	if failed && errors.As(applyErr, &bad) && ctx.Err() == nil {
		b.Report.Warnf("%v", unusable(bad.item, bad.err))
		failed, err, lost = false, nil, append(lost, bad.item.Key)
		b.dropBlob(bad.item.Step)
	}
	switch {
	case failed:
		return false, applyErr
	case err == nil && len(lost) == 0 && applyErr == nil:
		return true, b.commit(ctx, lock)
	}
	if rerr := lock.Rollback(); rerr != nil {
		return false, errors.Join(err, fmt.Errorf("%w: %w", ErrRoot, rerr))
	}
	b.sv.Undone, b.incomplete = 0, nil
	if err == nil {
		b.lose(ctx, lost...)
	}
	return false, err
}

// dropBlob forgets a snapshot that turned out to be none.
func (b *builder) dropBlob(s *dag.Step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bl := b.blobs[s]; bl != nil {
		bl.bytes.Close()
		delete(b.blobs, s)
	}
}

// toRun reports whether a step that changes the root is to run.
func (b *builder) toRun() bool {
	for _, pl := range b.sv.Plan.Layers {
		for _, it := range pl.Items {
			if it.State == dag.ToRun && it.Step.ChangesRoot() {
				return true
			}
		}
	}
	return false
}

// arrive waits for the snapshot of a step that is still on its way.
func (b *builder) arrive(ctx context.Context, s *dag.Step) error {
	there := b.arrived[s]
	if there == nil {
		return nil
	}
	select {
	case <-there:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// comes waits until the snapshot of a step is there, or begins to come: then it is
// returned as what it is so far.
func (b *builder) comes(ctx context.Context, s *dag.Step) (*cache.Blob, error) {
	early := b.fetching[s]
	if early == nil {
		return nil, b.arrive(ctx, s)
	}
	if err := early.Wait(ctx, cache.Partial); err != nil {
		return nil, err
	}
	select {
	case <-b.arrived[s]:
		return nil, nil
	default:
		return early, nil
	}
}

// arriveFirst waits until something can be done to the root.
func (b *builder) arriveFirst(ctx context.Context) error {
	for _, pl := range b.sv.Plan.Layers {
		for _, it := range pl.Items {
			if b.arrived[it.Step] != nil {
				return b.arrive(ctx, it.Step)
			}
		}
	}
	return ctx.Err()
}
