package solver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/clayer/clayer/solver/capture"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// ErrSinceWhen says that neither a solve nor the machine's start gives a time.
var ErrSinceWhen = errors.New("since when?")

// Installed finds what the machine has beyond its base and the applied
// layers: what was installed by hand, and what else since the last solve, or, where there
// was none, since the machine started. o.Since, if it is set, is taken in place of all.
func Installed(ctx context.Context, opt Options, o capture.Options) (*capture.Found, error) {
	r := newReadOnly(opt)
	root, err := r.settled(ctx)
	if err != nil {
		return nil, err
	}
	if o.Since.IsZero() {
		byHand, err := r.byHand(root, nil)
		if err != nil {
			return nil, err
		}
		o.ByHand = func(manager, name string) bool {
			return slices.ContainsFunc(byHand, func(p exec.Installed) bool { return p.Manager == manager && p.Name == name })
		}
		if o.Since, err = drift.Committed(root.StateDir()); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnread, err)
		}
	}
	if o.Since.IsZero() {
		if o.Since, err = capture.Started(); err != nil {
			return nil, fmt.Errorf("%w %w", ErrSinceWhen, err)
		}
	}
	o.Root = root.Dir()
	o.Changed, err = drift.DiffSince(ctx, root.Dir(), root.StateDir(), o.Since, nil)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnread, err)
	}
	return capture.Look(ctx, o)
}

// ByHand returns what was installed by hand in the options' root after clayer saw it
// first, and is there.
func ByHand(opt Options) ([]exec.Installed, error) {
	r := newReadOnly(opt)
	root, err := r.open()
	if err != nil {
		return nil, err
	}
	return r.byHand(root, nil)
}

// byHand is ByHand of a root; state is that of the root, or nil.
func (r *session) byHand(root *rootfs.Root, state *record.State) ([]exec.Installed, error) {
	if state == nil {
		var err error
		if state, err = root.State(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRoot, err)
		}
	}
	_, list, err := inventory.ByHand(root.StateDir(), baseView(root, state), r.home())
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnread, err)
	}
	return list, err
}

// baseView returns what makes the view of a root without what is applied.
func baseView(root *rootfs.Root, state *record.State) func() (*names.View, error) {
	return func() (*names.View, error) { return nextView(root, state, len(state.Log)) }
}

// home is $HOME of the session.
func (r *session) home() string { return r.variables()["HOME"] }

// record makes what a root has its base record, where it has none.
func (r *session) record(lock *rootfs.Lock) error {
	return inventory.Record(lock.Root().StateDir(), baseView(lock.Root(), lock.State()), r.home())
}

// recordBase is record for a root that an earlier version of clayer has changed, and this
// solve does not. What fails is tried again by the next one.
func (r *session) recordBase(ctx context.Context, root *rootfs.Root) {
	if is, err := inventory.IsRecorded(root.StateDir()); is || err != nil {
		return
	}
	if lock, err := root.Lock(ctx, false, nil); err == nil {
		_ = r.record(lock)
		_ = lock.Unlock()
	}
}
