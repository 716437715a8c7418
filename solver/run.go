package solver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
)

// RunOptions say what Run runs, and where.
type RunOptions struct {
	Argv []string

	// At is a line: the command finds the root as the instruction there does,
	// with its variables, directory and mounts. 0 is after all layers.
	At   int
	File string // the file that At is a line of; "" is the last one given

	Dir                   string // absolute; "" is that of the instruction, or WORKDIR's at the end
	Stdin, Stdout, Stderr *os.File
}

// Run runs a command in the environment of the options' files, in an overlay:
// root and stores stay as they are, but that steps which are cached nowhere are
// built and stored, while the root is locked. What the command writes is dropped
// when it ends.
//
// The error is a *sandbox.ExitError when the command ended with another status
// than 0; errors of planning and building are those of Solve, and one without
// an overlay wraps sandbox.ErrUnavailable.
func Run(ctx context.Context, opt Options, run RunOptions) (err error) {
	r := newSession(opt)
	root, release, err := r.unchanging(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	sv, err := r.survey(ctx, root)
	if err != nil {
		return err
	}
	at, err := stepAt(sv.Plan.Graph, run)
	if err != nil {
		return err
	}
	work, done, err := r.runDir()
	if err != nil {
		return err
	}
	defer done()
	err = exec.View(ctx, r.execConfig(root, sv), root, sv, at, work, func(view sandbox.Layered) error {
		cmd := sandbox.Command{Argv: run.Argv, Timeout: r.Timeout, MachineTemp: at == nil}
		cmd.Env, cmd.Dir = r.surroundings(sv.Plan.Graph, at)
		if run.Dir != "" {
			cmd.Dir = run.Dir
		}
		if in, ok := instruction(at).(*frontend.Run); ok {
			prepared, err := r.mounts().Prepare(ctx, in, &cmd.Env)
			if err != nil {
				return err
			}
			defer prepared.Release()
			cmd.Mounts = prepared.List
		}
		if err := release(); err != nil {
			return err
		}
		r.Report.Emit(report.Event{Kind: report.Done})
		return view.Exec(ctx, cmd, run.Stdin, run.Stdout, run.Stderr)
	})
	return nameWithheld(err)
}

// unchanging opens the root, and holds its lock until release, so that no other solve
// changes it while steps are built on it: a snapshot would be wrong, and be stored.
// A root that this user may not lock can't be held.
func (r *session) unchanging(ctx context.Context) (root *rootfs.Root, release func() error, err error) {
	if root, err = r.open(); err != nil {
		return nil, nil, err
	}
	lock, err := r.lock(ctx, root)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		root, err = r.settled(ctx)
		return root, func() error { return nil }, err
	}
	if err == nil {
		// What a RUN in place did that was cut off must be in no view.
		if err = running.Recover(ctx, r.Report, r.sandboxOptions(root), root, lock); err != nil {
			err = errors.Join(err, r.unlock(lock))
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return root, sync.OnceValue(func() error { return r.unlock(lock) }), nil
}

// runDir returns a directory for the overlays of Run: in the cache directory, where
// that can be written.
func (r *session) runDir() (path string, done func(), err error) {
	if r.Cache != "" {
		dir := filepath.Join(r.Cache, "run")
		if root, err := safefile.MakeDir(dir, 0o700); err == nil {
			err = errors.Join(safefile.CheckDir(root), unix.Access(dir, unix.W_OK))
			root.Close()
			if err == nil {
				return dir, func() {}, nil
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

// surroundings returns the environment and the directory of a step, or, for nil,
// of what comes after all layers.
func (r *session) surroundings(g *dag.Graph, at *dag.Step) (env []string, dir string) {
	if run, ok := instruction(at).(*frontend.Run); ok {
		return r.environ(at, run), run.Dir
	}
	vars := r.variables()
	dir = "/"
	if at != nil {
		setBefore(vars, at.Layer, nil)
		frontend.SetVars(vars, at.Layer.Scope.Env, nil)
		dir = at.Layer.Scope.Dir
	} else if n := len(g.Layers); n > 0 {
		frontend.SetVars(vars, g.Env(n), nil)
		dir = g.Layers[n-1].Scope.Dir
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+vars[name])
	}
	return env, dir
}
