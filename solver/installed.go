package solver

import (
	"context"
	"errors"
	"fmt"

	"github.com/clayer/clayer/solver/capture"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// ErrSinceWhen says that neither a solve nor the machine's start gives a time.
var ErrSinceWhen = errors.New("since when?")

// Installed finds what the machine has beyond its base and the applied
// layers: what was installed since the last solve, or, where there was none,
// since the machine started. o.Since, if it is set, is taken in place of both.
func Installed(ctx context.Context, opt Options, o capture.Options) (*capture.Found, error) {
	root, err := newReadOnly(opt).settled(ctx)
	if err != nil {
		return nil, err
	}
	if o.Since.IsZero() {
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
