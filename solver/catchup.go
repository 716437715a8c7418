package solver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/solver/internal/catchup"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/rootfs"
)

// catchUp puts into the stores what they lack of the composition, which is in the root.
// A store that failed in this solve is not tried again. It returns how many snapshots they
// got.
func (r *session) catchUp(ctx context.Context, root *rootfs.Root, sv *survey.Survey) (pushed int, err error) {
	stores := r.Stores
	if len(r.Probes) > 0 { // what passes its probe is listed in none of them yet
		stores = r.AllStores()
	}
	if !r.Push || len(stores) == 0 {
		return 0, nil
	}
	state := sv.State
	if !sv.UpToDate() { // it is from before the change
		if state, err = root.State(); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrRoot, err)
		}
	}
	list := r.listing(sv)
	list.Withhold()
	layers := catchup.Layers(sv.Plan, state, sv.Found, r.Unstored, list)
	p := &catchup.Pusher{Again: r.PushAgain, Report: r.Report}
	if r.Local != nil {
		p.From = r.Local
	}
	if r.Cache != "" {
		p.Memory = catchup.Memory(filepath.Join(r.Cache, "stores"))
	}
	eg, ctx := errgroup.WithContext(ctx)
	for _, s := range stores {
		if !r.Report.Failed(s.Name()) && !errors.Is(s.Writable(), cache.ErrReadOnly) {
			eg.Go(func() error { return p.Push(ctx, s, layers) })
		}
	}
	err = eg.Wait()
	return p.Pushed(), err
}

func (r *session) listing(sv *survey.Survey) catchup.Listing {
	return catchup.Listing{Plan: sv.Plan, Project: r.Project, Withheld: r.Withheld, Last: r.stages.Last, IsStage: r.isStage, Unlisted: func(layer string) bool {
		return r.Shortfall.Lacks(layer) || r.Probes[layer] != "" && !r.proven[layer]
	}}
}
