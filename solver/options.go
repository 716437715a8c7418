// Package solver makes a root what its Containerfiles say: it plans, restores
// what is cached, builds the rest and applies both. It emits events and prints
// nothing.
//
// Load the files with package layers, say in Options which root and stores to
// use, and call a verb. Plan says what Solve would do, and writes nothing; Solve
// does it, in one transaction; Undo takes it back. Verify, Diff, Drift and Status
// compare a root with what was applied to it. Run runs a command in the
// environment of a layer, and leaves the root as it is. No call changes its
// Options. What changes a root waits for what else does.
//
// A program whose steps RUN something calls sandbox.Main first in its main
// function.
package solver

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/mounts"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/shortfall"
	"github.com/clayer/clayer/solver/machine"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/overlay"
)

// Options say what to solve, and how. The zero value of a field is its default.
// No call changes them, so one value serves several: Plan, then Solve.
type Options struct {
	Files []*frontend.File // as Load returns them, in the order in which they are composed

	Root string // the root that is made, which may be relative; "" means "/"
	Dest string // a directory that changes go to instead of Root, which RUN sees below it; "" means none

	BaseID     string            // extra text mixed into every key
	Salts      []string          // the same, several
	BuildArgs  map[string]string // values of ARG
	Secrets    map[string]Secret // by id
	Agents     map[string]Agent  // likewise
	Environ    []string          // the session's variables, as os.Environ returns them
	Sandbox    string            // one of sandbox.Kinds; "" means "auto"
	Compare    sandbox.Compare   // how a RUN in place finds what changed
	Hermetic   bool              // RUN inherits the session's variables that reach the network, and no others
	InheritEnv bool              // RUN inherits all of the session's variables
	Timeout    time.Duration     // of each RUN; 0 means none
	Jobs       int               // how many downloads, and how many chains, at a time; 0 means 8, or the number of CPUs if that is more

	GitHub *github.Client // for FETCH github: and InvalidateOn; nil: there is none
	// Registry returns the client of a repository of images, with its login; nil: without any.
	Registry func(registry.Repository) (*registry.Client, error)

	InvalidateOn []string // "owner/repo[@ref]", whose commits are mixed into every key

	// LegacyURL returns where layer.tar.gz of a container-layer release would
	// be; nil: none is looked for.
	LegacyURL func(tag string) string

	Local        *dir.Dir      // the store on this machine, where snapshots are packed too; nil: none
	Stores       []cache.Store // more stores, asked after Local, in order
	Push         bool          // what is built is put into all of them, and what they lack of the composition
	PushAgain    bool          // they are asked what they lack, and tried, whatever is remembered of them
	ShareMounts  bool          // cache mounts come from Stores where they are empty, and go there
	Rebuild      bool          // what is cached or present is built again
	Compression  int           // zstd level of what is packed; 0 means snapshot.DefaultLevel
	SameOnly     bool          // what is built since a snapshot cannot be had, and is another one, is put into no store
	BuildOnly    bool          // what is to run is built, and stored, in an overlay; the root stays as it is
	RequireCache bool          // a store that fails is an error in the end
	Cache        string        // a directory for downloads and cache mounts, made when needed; "": neither outlives the call
	MaxDownloads int64         // bytes of downloads retained there; 0 means 2 GiB
	Durability   Durability    // when changes outlive a loss of power
	NoWait       bool          // fail at once while another solve holds the root
	Profile      bool          // login shells of the root get the environment too
	Force        bool          // files that the user changed since they were applied are undone too

	// Shortfall says which layers Files have in part, or not at all, since more could not be
	// had: it is recorded beside the state of the root, and these layers are listed in no
	// store. nil: Files are all that is wanted.
	Shortfall *Shortfall

	// Private returns what says which paths of a root are somebody's own, as base.Private
	// does: a COPY of a directory of a stage leaves them out. nil: it leaves out nothing.
	Private func(dir string) func(path string) bool

	// Withheld knows which snapshots hold credentials, and searches those that are built for
	// more. nil: they are not searched.
	Withheld *cache.Withheld

	// Project returns whose layers these are, "owner/repo": it is recorded with them. It is
	// called when a layer is listed. nil, or "": nobody knows.
	Project func() string

	// Probes are commands by the name of a layer, of which one is not listed in a store before
	// its probe has passed, and not restored again after it failed. Package probes runs them.
	Probes map[string]string

	Again func(*dag.Step) bool // not nil: which steps run although the root has them

	// Allow, if not nil, is asked before each RUN. Its error is that of the step.
	Allow func(Starting) error

	// Report receives what happens, a store that fails once. nil: nothing is reported.
	Report *report.Reporter
}

// A Starting is a RUN that is about to start.
type Starting struct {
	Step     *dag.Step
	Estimate time.Duration // how long it took before; 0 if unknown
	InPlace  bool          // it runs on the root itself
}

// A Shortfall is what is missing in a root of a composition.
type Shortfall = shortfall.Report

// A ShortLayer is a layer that is not whole.
type ShortLayer = shortfall.Layer

// A Durability says when changes outlive a loss of power; the zero value leaves it to the file systems.
type Durability = durability.Setting

// Others: each change at once, all when the call has ended, whenever the system writes them.
const SyncAlways, SyncAtEnd, SyncNever = durability.Always, durability.AtEnd, durability.Never

// A Secret is where the content of RUN --mount=type=secret comes from.
type Secret = mounts.Secret

// An Agent is an SSH agent that RUN --mount=type=ssh may ask for signatures.
type Agent = mounts.Agent

// A MissingAgentError says that Options.Agents lacks one that a RUN requires.
type MissingAgentError = mounts.MissingAgentError

// A MissingSecretError says that Options.Secrets lacks a secret that a RUN requires.
type MissingSecretError = mounts.MissingSecretError

// Errors that decide the exit code. Others are frontend.Problems, *BuildError, and
// those of the packages below.
var (
	// ErrStore says that a store failed, under RequireCache.
	ErrStore = exec.ErrStore
	// ErrRoot says that the root could not be changed, or was changed in part.
	ErrRoot = exec.ErrRoot
	// ErrUnread says that the root could not be read.
	ErrUnread = errors.New("the root could not be read")
)

// A BuildError says which step failed.
type BuildError = exec.BuildError

// MaxSecret bounds a secret, in bytes, as BuildKit does.
const MaxSecret = mounts.MaxSecret

// AllStores returns Local, if there is one, and Stores.
func (o *Options) AllStores() []cache.Store {
	if o.Local == nil {
		return o.Stores
	}
	return append([]cache.Store{o.Local}, o.Stores...)
}

func (o *Options) jobs() int {
	if o.Jobs > 0 {
		return o.Jobs
	}
	return max(8, runtime.GOMAXPROCS(0))
}

// base is the directory of the complete root, which RUN sees below Dest.
func (o *Options) base() string {
	if o.Root == "" {
		return "/"
	}
	return filepath.Clean(o.Root)
}

// target is the directory that is changed.
func (o *Options) target() string {
	if o.Dest != "" {
		return filepath.Clean(o.Dest)
	}
	return o.base()
}

func (o *Options) open() (*rootfs.Root, error) {
	opt := rootfs.Options{RemoveAll: overlay.RemoveAll, Durability: machine.Durability(o.Environ, o.Durability)}
	if o.Dest != "" {
		opt.Lower = o.base()
	}
	root, err := rootfs.Open(o.target(), opt)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return root, nil
}

// openState is open for who has to know what is applied.
func (o *Options) openState() (*rootfs.Root, *record.State, error) {
	root, err := o.open()
	if err != nil {
		return nil, nil, err
	}
	state, err := root.State()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	return root, state, nil
}
