package solver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// settled opens the root for a command that looks at its files. What a
// command before left half-done is rolled back, unless one is at work just now,
// which is reported: the files are between two states then.
func (r *session) settled(ctx context.Context) (*rootfs.Root, error) {
	root, state, err := r.openState()
	if err != nil {
		return nil, err
	}
	cut, err := root.CutOff(state)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	if !cut {
		return root, nil
	}
	lock, err := root.Lock(ctx, false, nil)
	if errors.Is(err, rootfs.ErrLocked) {
		r.warn("%v: what is told here is of a root between two states", err)
		return root, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	r.reportRecovered(lock)
	if err := lock.Unlock(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return root, nil
}

// Verify reports of each file that was applied to the root whether it is
// as applied, by path.
func Verify(ctx context.Context, opt Options) ([]drift.FileState, error) {
	return newReadOnly(opt).look(ctx, drift.Verify)
}

// Diff reports what changed in the root since the last solve or undo,
// their own changes left out, by path.
func Diff(ctx context.Context, opt Options) ([]drift.FileState, error) {
	return newReadOnly(opt).look(ctx, drift.Diff)
}

func (r *session) look(ctx context.Context, at func(ctx context.Context, root string, rec record.Dir, locked inroot.Locked) ([]drift.FileState, error)) ([]drift.FileState, error) {
	root, err := r.settled(ctx)
	if err != nil {
		return nil, err
	}
	files, err := at(ctx, root.Dir(), root.StateDir(), nil)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		// Directories of this user's, of mode 0, say: to look into them is a change.
		var lock *rootfs.Lock
		if lock, err = root.Lock(ctx, !r.NoWait, nil); err == nil {
			err = lock.Look(func(locked inroot.Locked) (err error) {
				files, err = at(ctx, root.Dir(), root.StateDir(), locked)
				return err
			})
			err = errors.Join(err, lock.Unlock())
		}
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrUnread, err)
	}
	return files, err
}

// A Drifted compares a composition with what is applied.
type Drifted struct {
	Differs bool           `json:"differs"` // a solve would change something, or something was installed by hand
	Layers  []DriftedLayer `json:"layers"`

	ByHand  []exec.Installed `json:"byHand,omitempty"`  // what was installed by hand
	Removed []UnmetStep      `json:"removed,omitempty"` // whose packages were removed by hand
}

// A DriftedLayer is a layer that is composed, applied, or both.
type DriftedLayer struct {
	Name string `json:"name"`
	Text string `json:"text"` // "as applied", or what a solve would do
}

// Drift reports whether a solve would change the root. It never
// waits, and changes nothing.
func Drift(ctx context.Context, opt Options) (*Drifted, error) {
	r := newReadOnly(opt)
	root, err := r.open()
	if err != nil {
		return nil, err
	}
	sv, err := r.survey(ctx, root)
	if err != nil {
		return nil, err
	}
	cut, err := running.IsCutOff(root, sv.State)
	if err != nil {
		return nil, err
	}
	unproven, err := Unproven(opt)
	if err != nil {
		return nil, err
	}
	d := &Drifted{Differs: !sv.UpToDate() || cut}
	composed := make(map[string]bool)
	for i := range sv.Plan.Layers {
		pl := &sv.Plan.Layers[i]
		composed[pl.Layer.Name] = true
		text := "as applied"
		if t := pl.Totals(); t.ToRun+t.Cached > 0 {
			text = t.String()
		} else if i := slices.IndexFunc(unproven, func(u ProbeResult) bool { return u.Layer == pl.Layer.Name }); i >= 0 {
			text, d.Differs = "as applied; its probe "+cmp.Or(unproven[i].Failure(), "did not run yet"), true
		}
		d.Layers = append(d.Layers, DriftedLayer{pl.Layer.Name, text})
	}
	for _, l := range sv.State.Layers {
		if !composed[l.Name] {
			d.Layers = append(d.Layers, DriftedLayer{l.Name, "applied, and not composed"})
		}
	}
	if d.ByHand, err = r.byHand(root, sv.State); err == nil {
		d.Removed, err = inventory.Removed(root, sv.State, r.home())
	}
	d.Differs = d.Differs || len(d.ByHand)+len(d.Removed) > 0
	return d, err
}
