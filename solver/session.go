package solver

import (
	"context"
	"fmt"
	"sync"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/contextdir"
	"github.com/clayer/clayer/solver/internal/environ"
	"github.com/clayer/clayer/solver/internal/images"
	"github.com/clayer/clayer/solver/internal/lookup"
	"github.com/clayer/clayer/solver/internal/stages"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/internal/transfers"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sharedmounts"
	"github.com/clayer/clayer/solver/source"
)

// A session is one call of a verb: its options, which it does not change, and
// what it has learned meanwhile. Its methods are safe for concurrent use.
type session struct {
	Options
	transfers.Steps
	*lookup.Finder
	store     *cache.Tier      // nil: there is none
	files     []*frontend.File // Options.Files, but those that a legacy release replaces
	readOnly  bool             // nothing that is downloaded is stored
	elsewhere string           // the platform of another machine that a plan is for; "" for none
	machine   string           // the platform of the root, once it is known
	proven    map[string]bool  // layers in the root that have passed their probe; the last survey sets it

	resolving sync.Once
	resolver  *source.Resolver
	legacy    layers.Legacy
	stages    *stages.Stages // those of all sessions of one call
	root      *rootfs.Root   // of the last survey
	scope     frontend.Scope // of the image that a stage is built on
	isStage   bool           // it is of a stage, whose view shows nothing that is applied to the root
	sharing   *sharedmounts.Sharing
	images    *images.Source       // shared with the sessions of stages
	contexts  *contextdir.Contexts // likewise
}

func newSession(opt Options) *session {
	if opt.Report == nil {
		opt.Report = report.New(nil)
	}
	r := &session{Options: opt, files: opt.Files}
	if stores := opt.AllStores(); len(stores) > 0 {
		r.store = cache.Tiered(opt.Report.StoreFailed, stores...)
	}
	r.Finder = lookup.New(lookup.Options{Tier: r.store, Report: opt.Report, Jobs: r.jobs(), Withheld: opt.Withheld, Unstored: r.Unstored})
	r.Sources, r.Meters = r.sources, opt.Report
	if r.store != nil {
		r.Earlier.List, r.Earlier.Warn = r.store.List, func(text string) { r.warnOnce("%s", text) }
	}
	r.sharing = sharedmounts.NewSharing(opt.ShareMounts, opt.Cache, opt.Stores, opt.Push, opt.Report)
	r.stages = &stages.Stages{Files: opt.Files, Open: r.openStage, Stored: r.store != nil && opt.Push, Warn: r.warnOnce, Private: opt.Private}
	r.legacy = layers.Legacy{URL: opt.LegacyURL, Fetch: r.fetchLegacy}
	return r
}

// newReadOnly is newSession for a verb that changes nothing.
func newReadOnly(opt Options) *session {
	r := newSession(opt)
	r.readOnly = true
	return r
}

// environ returns where the variables of RUNs come from.
func (r *session) environ() environ.Session {
	return environ.Session{Environ: r.Environ, Hermetic: r.Hermetic, InheritEnv: r.InheritEnv, BuildArgs: r.BuildArgs}
}

// lock takes the lock of the root, and reports the holder that it waits for.
func (r *session) lock(ctx context.Context, root *rootfs.Root) (*rootfs.Lock, error) {
	lock, err := root.Lock(ctx, !r.NoWait, func(holder string) {
		r.Report.Emit(report.Event{Kind: report.Waiting, Text: holder})
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	r.reportRecovered(lock)
	return lock, nil
}

func (r *session) unlock(lock *rootfs.Lock) error {
	err := lock.Unlock()
	r.reportPreserved(lock)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return nil
}

func (r *session) warn(format string, args ...any) { r.Report.Warnf(format, args...) }

func (r *session) warnOnce(format string, args ...any) { r.Report.WarnOnce(format, args...) }

func (r *session) sandboxOptions(root *rootfs.Root) sandbox.Options {
	over := ""
	if r.Dest != "" {
		over = r.target()
	}
	return sandbox.Options{Root: r.base(), Over: over, Hide: []string{root.StateDir().String(), r.Cache}, Compare: r.Compare, Warn: r.inSandbox}
}

func (r *session) inSandbox(text string) { r.Report.WarnOnce("in the sandbox %s", text) }

// PlannedSandbox says which sandbox the steps of a plan would run in, how it works
// here, and why it is this one; "" if none of them runs. Nothing is written.
func PlannedSandbox(opt Options, p *dag.Plan) (string, error) {
	r := newReadOnly(opt)
	if !survey.Runs(p) {
		return "", nil
	}
	root, err := r.open()
	if err != nil {
		return "", err
	}
	s, err := sandbox.Check(r.Options.Sandbox, r.sandboxOptions(root), exec.Engines...)
	if err != nil {
		return "", err
	}
	return s.String(), nil
}

// close drops the views of stages, and what was unpacked of images.
func (r *session) close() error {
	err := r.stages.Close()
	if r.images != nil && !r.isStage {
		r.images.Close()
	}
	return err
}
