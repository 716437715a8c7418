package solver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/catchup"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/internal/shortfall"
	"github.com/clayer/clayer/solver/internal/stages"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
)

// A Result is what a solve did.
type Result struct {
	Ran       int                `json:"ran"`                 // steps that were run, fetched or copied
	Restored  int                `json:"restored"`            // steps whose snapshot came from a store
	ByContent int                `json:"byContent,omitempty"` // of the restored: found by what the steps before them made
	Present   int                `json:"present"`             // steps that were in the root already
	Pushed    int                `json:"pushed,omitempty"`    // snapshots of these layers that stores got, which lacked them
	Undone    int                `json:"undone"`              // removed steps, and those that have to be applied again
	Preserved []rootfs.Preserved `json:"kept,omitempty"`      // files that stay as the user has them
	Layers    []LayerResult      `json:"layers"`
	ByHand    []exec.Installed   `json:"byHand,omitempty"` // what was installed by hand, where a step ran
	Took      time.Duration      `json:"took"`             // nanoseconds

	Shortfall *Shortfall `json:"shortfall,omitempty"` // what could not be had, of a solve for the best
}

// A LayerResult names a layer that is now in the root.
type LayerResult struct {
	Name string  `json:"name"`
	Key  key.Key `json:"key"`
	Tag  string  `json:"tag"`

	Built bool `json:"built,omitempty"` // all of its steps were run, fetched or copied now
}

// String says the counts in words: "1 ran, 2 restored, 3 present".
func (r *Result) String() string {
	var parts []string
	restored := "restored"
	if r.ByContent > 0 {
		restored += fmt.Sprintf(" (%d found by content)", r.ByContent)
	}
	for _, c := range []struct {
		n    int
		what string
	}{{r.Ran, "ran"}, {r.Restored, restored}, {r.Present, "present"}, {r.Undone, "undone"}, {r.Pushed, "pushed"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// Solve makes the root what the options say: it plans, restores what is
// cached, builds the rest, and applies both.
//
// The error is frontend.Problems for what the files' writer has to change, a
// *BuildError for a step that failed (the root is untouched then), wraps
// ErrRoot when the root could not be changed, completely or in part, and ErrStore
// when a store failed under RequireCache. The Result is nil if nothing was
// applied.
func Solve(ctx context.Context, opt Options) (res *Result, err error) {
	r := newSession(opt)
	defer func() { err = errors.Join(err, r.close()) }()
	start := time.Now()
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
	var did exec.Result
	if !sv.UpToDate() || cut || r.profileDiffers(root, sv.State, sv.Env()) || r.shortfallDiffers(root) {
		if sv, did, err = r.change(ctx, root); err != nil {
			return nil, err
		}
	} else {
		inventory.RecordLater(ctx, root, r.home())
		if inventory.MayHaveRemoved(root, sv.State, r.home()) {
			inventory.WarnRemoved(root, sv.State, r.home(), r.warn)
		}
	}
	pushed, err := r.catchUp(ctx, root, sv)
	if err != nil {
		return nil, err
	}
	r.sharing.Push(ctx)
	r.Report.Emit(report.Event{Kind: report.Done})
	res = resultOf(sv, did)
	res.Pushed = pushed
	res.Took = time.Since(start)
	if r.RequireCache {
		if store, err := r.Report.FailedStore(); err != nil {
			return res, fmt.Errorf("%w: %s: %w", ErrStore, store, err)
		}
	}
	return res, did.Incomplete
}

// change makes the root what the options say, under its lock.
func (r *session) change(ctx context.Context, root *rootfs.Root) (sv *survey.Survey, did exec.Result, err error) {
	lock, err := r.lock(ctx, root)
	if err != nil {
		return nil, did, err
	}
	defer func() { err = errors.Join(err, r.unlock(lock)) }()
	if err := running.Recover(ctx, r.Report, r.sandboxOptions(root), root, lock); err != nil {
		return nil, did, err
	}
	if err := inventory.Record(lock, r.home()); err != nil {
		r.warn("what this machine has is not recorded, so what is installed by hand later will not be noticed: %v", err)
	}
	// Another solve may have changed the root since. The sources are pinned
	// already: nothing is requested twice.
	if sv, err = r.survey(ctx, root); err == nil {
		sv, err = r.beforeSteps(ctx, root, sv)
	}
	if err != nil {
		return nil, did, err
	}
	r.Report.Emit(report.Event{Kind: report.Planned, Plan: sv.Plan})
	warn, removed := inventory.Watch(root, r.warn), inventory.MayHaveRemoved(root, sv.State, r.home())
	if did, err = exec.Solve(ctx, r.execConfig(root, sv), root, lock, sv); err != nil {
		return nil, did, r.explained(err)
	}
	for _, pl := range sv.Plan.Layers {
		r.Shortfall.Has(pl.Layer.Name, pl.Key)
	}
	if r.BuildOnly {
		return sv, did, nil
	}
	if err := shortfall.Write(lock.Root().StateDir(), r.Shortfall); err != nil {
		r.warn("what is missing is not recorded: %v", err)
	}
	warn()
	if removed {
		inventory.WarnRemoved(lock.Root(), lock.State(), r.home(), r.warn)
	}
	if _, err := r.sources().Downloads.Prune(cmp.Or(r.MaxDownloads, defaultDownloads)); err != nil {
		r.warn("cannot prune the downloads: %v", err)
	}
	return sv, did, nil
}

// RecordShortfall records Options.Shortfall beside the state of a root, and does nothing
// else. It waits for nobody.
func RecordShortfall(ctx context.Context, opt Options) error {
	opt.NoWait = true
	r := newSession(opt)
	root, err := r.open()
	if err != nil {
		return err
	}
	lock, err := r.lock(ctx, root)
	if err != nil {
		return err
	}
	return errors.Join(shortfall.Write(lock.Root().StateDir(), r.Shortfall), r.unlock(lock))
}

// shortfallDiffers reports whether something is missing of the composition, or was.
func (r *session) shortfallDiffers(root *rootfs.Root) bool {
	was, err := shortfall.Read(root.StateDir())
	return r.Shortfall != nil || was != nil || err != nil
}

// nameWithheld adds to the error of a failed RUN what it did not get of the session.
func nameWithheld(err error) error {
	var failed *BuildError
	if errors.As(err, &failed) {
		failed.Withheld = failed.Step.Withheld()
	}
	return err
}

// explained adds to the error of a failed RUN of a layer what is known of its reasons.
func (r *session) explained(err error) error {
	var failed *BuildError
	if errors.As(err, &failed) {
		failed.Err = stages.NameImage(failed.Err, stages.ImageOf(stages.With(r.files, failed.Step.Layer.File)))
	}
	return nameWithheld(err)
}

func resultOf(sv *survey.Survey, did exec.Result) *Result {
	res := &Result{Undone: did.Undone, Preserved: did.Preserved, ByHand: did.ByHand}
	for i := range sv.Plan.Layers {
		pl := &sv.Plan.Layers[i]
		t := pl.Totals()
		for _, it := range pl.Items {
			if did.Reused[it.Step] {
				t.ToRun, t.Cached = t.ToRun-1, t.Cached+1
			}
			if did.Reused[it.Step] || it.State == dag.Cached && it.Found.ByContent {
				res.ByContent++
			}
		}
		res.Ran += t.ToRun
		res.Restored += t.Cached
		res.Present += t.Present
		res.Layers = append(res.Layers, LayerResult{pl.Layer.Name, pl.Key, cache.Tag(pl.Layer.Name, pl.Key), t.ToRun > 0 && t.Cached+t.Present == 0})
	}
	return res
}

const defaultDownloads = 2 << 30

// execConfig returns what a solve of the root works with.
func (r *session) execConfig(root *rootfs.Root, sv *survey.Survey) exec.Config {
	cfg := exec.Config{
		Steps: r, Stages: r.stages, Report: r.Report, Push: r.Push, Rebuild: r.Rebuild, SameOnly: r.SameOnly, BuildOnly: r.BuildOnly, Compression: r.Compression, Jobs: r.jobs(),
		Kind: r.Options.Sandbox, Sandbox: r.sandboxOptions(root), Force: r.Force, Home: r.home(),
		Profile: func(ctx context.Context, lock *rootfs.Lock) ([]rootfs.Preserved, error) {
			return r.writeProfile(ctx, lock, r.Profile || lock.State().Profile != nil, sv.Env())
		},
	}
	if r.Local != nil {
		cfg.Spool = r.Local.Create
	}
	if r.store != nil { // a nil *cache.Tier would be a Store
		cfg.Store = catchup.Store{Tier: r.store, Listing: r.listing(sv)}
	}
	return cfg
}
