package solver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/capture"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/byhand"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/rootfs/drift"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
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
	_, list, err := inventory.ByHand(root, state, r.home())
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnread, err)
	}
	return list, err
}

// An UnmetStep is an applied step that needs, or installed, a package which the root lacks.
type UnmetStep = inventory.Unmet

// Unmet returns the applied steps that need, or installed, packages which the root lacks.
func Unmet(opt Options) ([]UnmetStep, error) {
	r := newReadOnly(opt)
	root, err := r.open()
	if err == nil {
		return inventory.UnmetSteps(root, r.home())
	}
	return nil, err
}

// home is $HOME of the session.
func (r *session) home() string { return r.environ().Variables()["HOME"] }

// A Watch is an install by hand that a package manager makes on the root, which is locked
// until Close: what it changes becomes the step of a line that repeats it.
type Watch struct {
	With  map[string]string // variables that the install runs with, and the session lacks
	r     *session
	root  *rootfs.Root
	lock  *rootfs.Lock
	view  sandbox.InPlace
	files needs.Saved
	start time.Time
	took  time.Duration
	held  *byhand.Held
	ended func(context.Context) error

	before *inventory.Inventory // the packages that the root had
	byHand []exec.Installed     // those of them that were installed by hand
}

// ErrAtWork says that a root is being changed.
var ErrAtWork = errors.New("another install, or a solve, is at work")

// WatchInstall reads the root before an install by hand that replaces those Debian packages.
// What is in the directory own is no part of it. It waits for nobody: the error says why what
// is installed can be no step, and wraps ErrAtWork while the root is being changed.
func WatchInstall(ctx context.Context, opt Options, own string, replaced []string) (w *Watch, err error) {
	opt.NoWait = true
	r := newSession(opt)
	root, err := r.open()
	if err != nil {
		return nil, err
	}
	state, err := root.State()
	if err != nil {
		return nil, err
	}
	if cut, err := running.IsCutOff(root, state); err != nil || cut {
		return nil, cmp.Or(err, fmt.Errorf("%w, or has not ended", ErrAtWork))
	}
	r.machine = r.platform(ctx, state)
	w = &Watch{r: r, root: root}
	if w.lock, err = r.lock(ctx, root); errors.Is(err, rootfs.ErrLocked) {
		return nil, ErrAtWork
	} else if err != nil {
		return nil, err
	}
	if err = inventory.Record(w.lock, r.home()); err == nil {
		w.before, w.byHand, err = inventory.ByHand(w.lock.Root(), w.lock.State(), r.home())
	}
	w.held = byhand.Hold(root.Dir(), w.before.Replaceable(root.Dir(), replaced))
	if err == nil {
		err = w.read(ctx, own)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Watch) read(ctx context.Context, own string) (err error) {
	opt := w.r.sandboxOptions(w.root)
	opt.Hide = append(opt.Hide, own)
	if opt.Work, err = w.lock.Root().WorkDir(); err != nil {
		return err
	}
	sb, err := inplace.New(opt)
	if err != nil {
		return err
	}
	home := w.r.home()
	if w.files, err = needs.Sums(w.root.Dir(), home, nil); err == nil {
		err = w.lock.SaveDatabases(byhand.Rewritten(w.root.Dir(), home, w.files)...)
	}
	if err != nil {
		return err
	}
	w.view = sb.InPlace()
	w.ended, err = w.view.Watch(ctx, func(path string) bool { return capture.IsSession("/"+path, home) })
	w.start = time.Now()
	return err
}

// Ended reads the root again: the install has succeeded.
func (w *Watch) Ended(ctx context.Context) error {
	w.took = time.Since(w.start)
	return w.ended(ctx)
}

// Prepare returns what makes what was installed the step of the last line of files, whose
// text that is, and stores its snapshot. projects are directories of the user's own work;
// alone returns an error if other installs were at work. The error of adopt wraps ErrStore
// where the snapshot is in no store; at any other the next solve runs the line.
func (w *Watch) Prepare(ctx context.Context, files []*frontend.File, text string, projects []string, alone func() error) (adopt func(context.Context) error, err error) {
	w.r.files = files
	sv, err := w.r.survey(ctx, w.root)
	if err != nil {
		return nil, err
	}
	s, err := byhand.Step(sv, text)
	session := w.r.environ().Variables()
	maps.Copy(session, w.With)
	if err == nil {
		err = byhand.Differs(s, w.r.environ().Of(s, s.Instr.(*frontend.Run)), session)
	}
	if err != nil {
		return nil, err
	}
	cfg := w.r.execConfig(w.root, sv)
	cfg.Watched = &exec.Watched{
		View:  byhand.View{InPlace: w.view, Root: w.root.Dir(), Projects: projects, Alone: alone, Held: w.held, Empty: new(bool)},
		Files: w.files, Before: w.before, ByHand: w.byHand, Took: w.took,
	}
	return func(ctx context.Context) error {
		did, err := exec.Solve(ctx, cfg, w.root, w.lock, sv)
		if _, failed := w.r.Report.FailedStore(); err == nil && failed != nil {
			err = fmt.Errorf("%w: %w", ErrStore, failed)
		}
		if cfg.Watched.View.(byhand.View).IsEmpty() && err == nil {
			err = fmt.Errorf("%w: %w", ErrStore, byhand.ErrNothing)
		}
		return cmp.Or(err, did.Incomplete)
	}, nil
}

// Close gives the root's lock back.
func (w *Watch) Close() error {
	w.held.Close()
	if w.view != nil {
		w.view.Close()
	}
	return w.r.unlock(w.lock)
}
