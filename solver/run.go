package solver

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/internal/environ"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/internal/stages"
	"github.com/clayer/clayer/solver/internal/users"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
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

	// Withhold, if not nil, reports which of the session's variables the command does not get.
	Withhold func(name, value string) bool

	// InPlace runs the command on the root itself where no overlay is to be had.
	InPlace bool
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
	whole := newSession(opt)
	r := whole
	if f := stages.At(opt.Files, run.File, run.At); f != nil {
		r = r.stageOf(f)
		unpack, err := r.onImage(ctx, f)
		if err == nil {
			err = unpack()
		}
		if err != nil {
			return errors.Join(err, whole.close())
		}
	}
	root, release, err := r.unchanging(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release(), r.stages.Close(), whole.close()) }()
	sv, err := r.survey(ctx, root)
	if err == nil {
		sv, err = r.beforeSteps(ctx, root, sv)
	}
	if err != nil {
		return err
	}
	var at *dag.Step // nil: after all layers
	if run.At != 0 {
		if at, err = sv.Plan.Graph.StepAt(run.File, run.At); err != nil {
			return err
		}
	}
	work, done, err := r.runDir()
	if err != nil {
		return err
	}
	defer done()
	cmd := sandbox.Command{Argv: run.Argv, Timeout: r.Timeout, MachineTemp: at == nil}
	cmd.Env, cmd.Dir = r.surroundings(sv.Plan.Graph, at, run.Withhold)
	cmd.Dir = cmp.Or(run.Dir, cmd.Dir)
	err = exec.View(ctx, r.execConfig(root, sv), root, sv, at, work, func(view sandbox.Layered, _ func() (*names.Made, error)) error {
		if in, ok := instruction(at).(*frontend.Run); ok {
			unmount, err := r.commands(false).Mount(ctx, at, in, &cmd)
			if err != nil {
				return err
			}
			defer unmount()
			cmd.Refused = func(why string) {
				r.Report.Warnf("the command ran as the user who runs clayer, and not as USER %s: %s", in.User, why)
			}
			if err := users.GiveIn(ctx, view, at, in, &cmd); err != nil {
				return err
			}
		}
		if err := release(); err != nil {
			return err
		}
		r.Report.Emit(report.Event{Kind: report.Done})
		return view.Exec(ctx, cmd, run.Stdin, run.Stdout, run.Stderr)
	})
	if run.InPlace && at == nil && sv.UpToDate() && errors.Is(err, sandbox.ErrUnavailable) {
		if err := release(); err != nil {
			return err
		}
		sb := r.sandboxOptions(root)
		sb.Work = work
		return inplace.Exec(ctx, sb, cmd, run.Stdin, run.Stdout, run.Stderr)
	}
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

// surroundings returns the environment and the directory of a step, or, for nil,
// of what comes after all layers. There withhold, if not nil, is heeded.
func (r *session) surroundings(g *dag.Graph, at *dag.Step, withhold func(name, value string) bool) (env []string, dir string) {
	if run, ok := instruction(at).(*frontend.Run); ok {
		return r.environ().Of(at, run), run.Dir
	}
	vars := r.environ().Variables()
	if withhold != nil {
		maps.DeleteFunc(vars, withhold)
	}
	dir = "/"
	if at != nil {
		environ.SetBefore(vars, at.Layer, nil)
		dag.SetVars(vars, at.Layer.Scope.Env, nil)
		dir = at.Layer.Scope.Dir
	} else if n := len(g.Layers); n > 0 {
		dag.SetVars(vars, g.Env(n), nil)
		dir = g.Layers[n-1].Scope.Dir
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+vars[name])
	}
	return env, dir
}
