// Package exec carries one solve from its plan to the root: it restores what is
// cached, builds the rest, stores what it built, and applies all of it.
package exec

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec/internal/flow"
	"github.com/clayer/clayer/solver/exec/internal/identity"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/places"
	"github.com/clayer/clayer/solver/internal/stages"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/internal/variants"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/overlay"
	"github.com/clayer/clayer/solver/source"
)

// Steps knows what steps are: what they read, and what they run. Its methods are
// safe for concurrent use.
type Steps interface {
	// Changes returns what a FETCH, COPY or WORKDIR does. It downloads what that
	// takes, once: a second call for a step waits for the first.
	Changes(ctx context.Context, s *dag.Step) (source.Placer, error)

	// Destination returns where a FETCH, COPY or WORKDIR puts what it makes.
	Destination(ctx context.Context, s *dag.Step) (places.Dest, error)

	// Expected returns what the snapshot of a step must be like, which finds the root
	// as it is in at, or, if exact is false, nearly so (nil: in any root); nil if that
	// is not known.
	Expected(ctx context.Context, s *dag.Step, at *names.View, exact bool) (source.Expectation, error)

	// Command returns what a RUN runs, on the root itself or not. release is called when it has ended.
	Command(ctx context.Context, it *dag.Item, run *frontend.Run, inPlace bool) (cmd sandbox.Command, release func(), err error)

	// Session returns what a step gets of the session: where $HOME is, "" if its key
	// covers that, and the directories that programs are searched in.
	Session(s *dag.Step) (home string, path []string)

	// Named returns the packages that the command of a step installs, as it names them.
	Named(s *dag.Step) []needs.Named

	// Unstored reports whether the steps of a layer are put into no store.
	Unstored(l *dag.Layer) bool

	// Find asks the stores for the steps that are not present.
	Find(ctx context.Context, g *dag.Graph, keys *dag.Keys, present map[*dag.Step]bool) (map[key.Key]cache.Found, error)

	// KeyOf returns the key that stores have a step by: its first one, or its second.
	KeyOf(first key.Key) key.Key

	// ByContent asks the stores for the snapshots of a step by its second key, as they are
	// wanted.
	ByContent(ctx context.Context, keys *dag.Keys, s *dag.Step, second key.Key) iter.Seq[cache.Found]

	// Variants asks the stores for all snapshots of steps of one layer.
	Variants(ctx context.Context, keys *dag.Keys, l *dag.Layer, steps []*dag.Step) (map[key.Key][]cache.Found, error)
}

// A Store is where snapshots come from and go to. It reports its failures itself.
type Store interface {
	Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error)
	Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error // b is verified then
	Put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error
	Complete(ctx context.Context, m cache.Manifest) error
}

// A Spool makes the blobs that snapshots are packed into: it is Create of a store of
// files, so that its Put has nothing to copy.
type Spool func() (*cache.Blob, error)

// Config is what a solve works with.
type Config struct {
	Steps  Steps
	Report *report.Reporter

	Store  Store          // nil: nothing is restored or stored
	Stages *stages.Stages // nil: no step takes files from one
	Stage  *frontend.File // that is built; nil for layers

	Spool       Spool // nil: snapshots are packed in the root's work directory
	Push        bool  // what is built is put into Store
	Rebuild     bool  // what is built replaces what Store has under its key
	SameOnly    bool  // of a snapshot that cannot be had, another one is put into no store
	BuildOnly   bool  // the root stays as it is
	Compression int   // zstd level; 0 means snapshot.DefaultLevel
	Jobs        int   // chains of steps, and downloads, at a time

	Kind    string          // of sandbox: one of sandbox.Kinds
	Sandbox sandbox.Options // but for Work
	Lists   bool            // View lists the layers in Store, too
	Force   bool            // files that the user changed since they were applied are undone too
	Home    string          // $HOME of the session

	// Watched, if not nil, has run already in place of the one RUN that is to run.
	Watched *Watched

	// Profile writes what login shells of the root read, as a part of the
	// transaction that is about to be committed.
	Profile func(ctx context.Context, lock *rootfs.Lock) ([]rootfs.Preserved, error)
}

// A Watched is what ran by other hands on the root, while its lock was held.
type Watched struct {
	View sandbox.InPlace // whose Watch has ended
	Took time.Duration

	Files  needs.Saved          // of before it ran, as Lock.SaveDatabases has saved them
	Before *inventory.Inventory // the packages of then
	ByHand []Installed          // those of them that were installed by hand
}

// A Result is what a solve did beside its plan.
type Result struct {
	Incomplete error              // what of an apply could not be done; the rest was
	Reused     map[*dag.Step]bool // steps that were to run, and that a store had by their second keys
	Undone     int                // steps
	Preserved  []rootfs.Preserved // files that stay as the user has them
	ByHand     []Installed        // what is on this machine alone, of a solve that ran something
}

// Solve makes the root what the plan says, under the root's lock. When it
// returns an error before it has committed, Unlock rolls the root back. The plan
// of sv is afterwards the one that was carried out.
func Solve(ctx context.Context, cfg Config, root *rootfs.Root, lock *rootfs.Lock, sv *survey.Survey) (Result, error) {
	b := newBuilder(cfg, root, sv)
	b.lock = lock
	defer b.close()
	f := flow.New(b, sv, cfg.Jobs)
	f.BuildOnly = cfg.BuildOnly
	f.Solve(sv.Before(nil))
	err := b.run(ctx, f)
	return b.did, err
}

// View calls use with an overlay view of the root as a step finds it, or, for
// nil, as it is after all layers; made says what of that is theirs, if none of them is
// present. work is the directory for the overlay: not in
// the root's work directory, which the next solve clears.
func View(ctx context.Context, cfg Config, root *rootfs.Root, sv *survey.Survey, at *dag.Step, work string, use func(view sandbox.Layered, made func() (*names.Made, error)) error) (err error) {
	b := newBuilder(cfg, root, sv)
	b.work = work
	defer b.close()
	opt := cfg.Sandbox
	opt.Work = work
	s, err := overlay.New(opt)
	if err != nil {
		return fmt.Errorf("run keeps the root untouched by an overlay, and there is none here: %w", err)
	}
	b.sb = s.Sandbox()
	var view sandbox.Layered
	defer func() {
		if view != nil {
			err = errors.Join(err, view.Close())
		}
	}()
	f := flow.New(b, sv, cfg.Jobs)
	if err := b.openView(f, &view, at); err != nil {
		return err
	}
	if err := b.run(ctx, f); err != nil { // then nothing is reported, or fails, while a shell has the terminal
		return err
	}
	if cfg.Lists {
		b.Complete(ctx)
	}
	if at != nil {
		if err := b.enterLayer(ctx, view, at.Layer); err != nil {
			return err
		}
	}
	return use(view, b.madeNames)
}

func newBuilder(cfg Config, root *rootfs.Root, sv *survey.Survey) *builder {
	b := &builder{Config: cfg, root: root, sv: sv, blobs: make(map[*dag.Step]*blob), scratch: make(map[*dag.Step]bool), inexact: make(map[*dag.Step]bool), other: make(map[*dag.Step]bool), known: make(map[*dag.Step]madeBy), did: Result{Reused: make(map[*dag.Step]bool)},
		names: make(map[*dag.Layer]*chainNames), views: make(map[*survey.LayerView]*openView)}
	b.identity = &identity.Steps{Survey: sv, Warn: cfg.Report.Warnf, Stages: cfg.Stages, Stage: cfg.Stage}
	b.variants = &variants.Lost{Made: b.made, Forget: b.Forget, Ask: cfg.Steps.Variants, All: cfg.Rebuild}
	if w := cfg.Watched; w != nil {
		b.sb, b.sums = &sandbox.Sandbox{Name: "inplace", InPlace: func() sandbox.InPlace { return w.View }}, w.Files
		b.here.once.Do(func() { b.here.now, b.here.packages = w.Before, w.ByHand })
	}
	return b
}

// run runs a flow, and closes what its nodes have opened.
func (b *builder) run(ctx context.Context, f *flow.Flow) error {
	err := f.Run(ctx)
	b.CloseViews()
	b.leaveRoot()
	return b.countStored(err)
}

// countStored completes the *BuildError of a step that was not built by what is
// stored all the same.
func (b *builder) countStored(err error) error {
	var failed *BuildError
	if errors.As(err, &failed) && !b.Has(failed.Step) {
		failed.Stored = b.stored
	}
	return err
}
