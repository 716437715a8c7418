package solver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver/rootfs/record"
	"github.com/clayer/clayer/solver/sandbox"
)

// RunOptions say what Run runs, and where.
type RunOptions struct {
	Argv []string

	// At is a line: the command finds the root as the instruction there does,
	// with its variables, folder and mounts. 0 is behind all layers.
	At   int
	File string // the file that At is a line of; "" is the last one given

	Dir                   string // absolute; "" is that of the instruction, or WORKDIR's at the end
	Stdin, Stdout, Stderr *os.File
}

// Run runs a command in the environment of the request's files, in an overlay:
// root and stores stay as they are, but that steps which are cached nowhere are
// built and stored. What the command writes is dropped when it ends.
//
// The error is a *sandbox.ExitError when the command ended with another status
// than 0; errors of planning and building are those of Solve, and one without
// an overlay wraps sandbox.ErrUnavailable.
func Run(ctx context.Context, opt Options, run RunOptions) (err error) {
	r := newSession(opt)
	root, err := r.settled(ctx)
	if err != nil {
		return err
	}
	sv, err := r.survey(ctx, root)
	if err != nil {
		return err
	}
	at, err := stepAt(sv.plan.Graph, run)
	if err != nil {
		return err
	}
	putting, stop := lasting(ctx)
	defer stop()
	// Not in the root's work directory: the next solve clears that.
	work, done, err := r.runDir()
	if err != nil {
		return err
	}
	defer done()
	b := &builder{r: r, root: root, sv: sv, work: work, blobs: make(map[*dag.Step]*blob), putting: putting}
	defer b.close()
	sbOpt := r.sandboxOptions(root)
	sbOpt.Work = work
	sbOpt.Warn = func(text string) { r.warnOnce("in the sandbox %s", text) }
	if b.sb, err = sandbox.NewOverlay(sbOpt); err != nil {
		return fmt.Errorf("run keeps the root untouched by an overlay, and there is none here: %w", err)
	}
	view, err := b.viewBefore(ctx, at)
	if err != nil {
		b.wait()
		var failed *BuildError
		if errors.As(err, &failed) {
			failed.Kept = b.kept
		}
		return err
	}
	defer func() { err = errors.Join(err, view.Close()) }()

	cmd := sandbox.Command{Argv: run.Argv, Timeout: r.Timeout}
	cmd.Env, cmd.Dir = r.surroundings(sv.plan.Graph, at)
	if run.Dir != "" {
		cmd.Dir = run.Dir
	}
	if in, ok := instruction(at).(*frontend.Run); ok {
		mounts, err := r.mounts(ctx, in, &cmd.Env)
		if err != nil {
			return err
		}
		defer mounts.release()
		cmd.Mounts = mounts.list
	}
	b.wait() // nothing is told, or fails, while a shell has the terminal
	r.emit(Event{Kind: EventDone})
	return view.(sandbox.Interactive).Exec(ctx, cmd, run.Stdin, run.Stdout, run.Stderr)
}

// runDir returns a directory for the overlays of Run: in the cache directory, where
// that can be written.
func (r *session) runDir() (path string, done func(), err error) {
	if r.Cache != "" {
		root, err := safefile.MakeDir(r.Cache, 0o700)
		if err == nil {
			defer root.Close()
			if err = safefile.MkdirAll(root, "run", 0o700); err == nil {
				return filepath.Join(r.Cache, "run"), func() {}, nil
			}
		}
	}
	path, err = os.MkdirTemp("", "clayer-run-")
	return path, func() { _ = os.Remove(path) }, err // it is empty when the views are closed
}

func instruction(s *dag.Step) frontend.Instruction {
	if s == nil {
		return nil
	}
	return s.Instr
}

// stepAt returns the step of a line; nil for none.
func stepAt(g *dag.Graph, opt RunOptions) (*dag.Step, error) {
	if opt.At == 0 {
		return nil, nil
	}
	var layer *dag.Layer
	for _, l := range g.Layers {
		if opt.File != "" && filepath.Clean(l.File.Path) == filepath.Clean(opt.File) || opt.File == "" {
			layer = l
		}
	}
	if layer == nil {
		return nil, frontend.Problems{{Pos: frontend.Pos{File: opt.File}, Message: "none of the files that are composed"}}
	}
	var lines []int
	for _, s := range layer.Steps {
		pos := s.Pos()
		if pos.Line <= opt.At && opt.At <= pos.End {
			return s, nil
		}
		lines = append(lines, pos.Line)
	}
	slices.Sort(lines)
	return nil, frontend.Problems{{
		Pos: frontend.Pos{File: layer.File.Path, Line: opt.At}, Message: "no step begins here",
		Line: layer.File.Excerpt(opt.At), Hint: "steps begin in lines " + strings.Trim(strings.ReplaceAll(fmt.Sprint(lines), " ", ", "), "[]"),
	}}
}

// before returns the items that make the root as a step finds it, all of them
// for nil, in the order in which they are applied.
func (b *builder) before(at *dag.Step) (items []*dag.Item) {
	var below map[*dag.Layer]bool
	if at != nil {
		below = make(map[*dag.Layer]bool)
		for l := at.Layer; l != nil; l = l.On {
			below[l] = true
		}
	}
	for i := range b.sv.plan.Layers {
		pl := &b.sv.plan.Layers[i]
		if below != nil && !below[pl.Layer] {
			continue
		}
		for j := range pl.Items {
			it := &pl.Items[j]
			if it.Step == at {
				return items
			}
			if it.Step.ChangesRoot() {
				items = append(items, it)
			}
		}
	}
	return items
}

// viewBefore returns a view of the root as a step finds it. What is in the root
// already is seen there; other steps are laid over it, and made where no store
// has them.
func (b *builder) viewBefore(ctx context.Context, at *dag.Step) (_ sandbox.View, err error) {
	var items []*dag.Item
	var stay map[key.Key]bool
	var revert []record.Event
	for {
		items = b.before(at)
		stay, revert = b.lowerOf(items)
		lost, err := b.restoreAll(ctx, b.absentFrom(items, stay))
		if err != nil {
			return nil, err
		}
		if len(lost) == 0 {
			break
		}
		b.lose(ctx, lost...)
	}
	b.prefetch(ctx, items)
	view, err := b.openReverted(ctx, revert)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, view.Close())
		}
	}()
	for _, it := range items {
		if stay[it.Key] {
			continue
		}
		it = b.sv.plan.Item(it.Step) // it may be planned anew meanwhile
		if it.State == dag.ToRun && looksAtRoot(it.Step) {
			err = b.step(ctx, it.Step, func(ctx context.Context, s *dag.Step, pack func(snapshot.Changes) error) error {
				return b.look(ctx, view, s, pack)
			})
			if err != nil {
				return nil, err
			}
			b.reconsider()
			continue
		}
		if it.State == dag.ToRun {
			if err = b.step(ctx, it.Step, b.bring); err != nil {
				return nil, err
			}
		}
		if err = view.Apply(ctx, b.blobs[it.Step].reader(), b.r.placement(it.Step)); err != nil {
			return nil, b.failure(it.Step, misplaced(it.Step, err))
		}
	}
	return view, nil
}

// lowerOf divides the log of the root into its beginning, as far as that is the
// beginning of the items, and the rest, which a view must not show.
func (b *builder) lowerOf(items []*dag.Item) (stay map[key.Key]bool, revert []record.Event) {
	stay = make(map[key.Key]bool)
	for i, ev := range b.sv.state.Log {
		if i >= len(items) || items[i].Key != ev.Key || items[i].State != dag.Present {
			return stay, b.sv.state.Log[i:]
		}
		stay[ev.Key] = true
	}
	return stay, nil
}

// absentFrom returns the items whose snapshots are laid over a view, and are
// not there yet.
func (b *builder) absentFrom(items []*dag.Item, stay map[key.Key]bool) (absent []*dag.Item) {
	for _, it := range items {
		if !stay[it.Key] && it.State != dag.ToRun && b.blobs[it.Step] == nil {
			absent = append(absent, it)
		}
	}
	return absent
}

// surroundings returns the environment and the folder of a step, or, for nil,
// of what comes behind all layers.
func (r *session) surroundings(g *dag.Graph, at *dag.Step) (env []string, dir string) {
	if run, ok := instruction(at).(*frontend.Run); ok {
		return r.environ(at.Layer, run), run.Dir
	}
	vars := r.variables()
	dir = "/"
	if at != nil {
		vars = r.ambient(at.Layer)
		setVars(vars, at.Layer.Scope.Env)
		dir = at.Layer.Scope.Dir
	} else if n := len(g.Layers); n > 0 {
		setVars(vars, compositionEnv(g, n))
		dir = g.Layers[n-1].Scope.Dir
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+vars[name])
	}
	return env, dir
}
