package solver

import (
	"bytes"
	"context"
	"errors"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/envfile"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs"
)

// profileDiffers reports whether the profile of a root, where one is asked for or
// was, is not that of env. What the user made of one that was asked for before
// is theirs.
func (r *session) profileDiffers(root *rootfs.Root, state *record.State, env []frontend.Var) bool {
	p := state.Profile
	if r.Profile {
		return p == nil || !bytes.Equal(root.Profile(), envfile.Sh(env))
	}
	return p != nil && p.Tx == 0 && len(envfile.Sh(env)) > 0
}

// writeProfile makes the profile of a root that of env, where it is wanted, as a
// part of the transaction that is to be committed.
func (r *session) writeProfile(ctx context.Context, lock *rootfs.Lock, wanted bool, env []frontend.Var) (preserved []rootfs.Preserved, err error) {
	if !wanted && lock.State().Profile == nil {
		return nil, nil
	}
	preserved, err = lock.SetProfile(ctx, wanted, envfile.Sh(env), r.Force)
	if errors.Is(err, rootfs.ErrProfile) {
		r.warn("%v", err)
		err = nil
	}
	return preserved, err
}
