package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/effort"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/shim"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/besteffort"
	"github.com/clayer/clayer/solver/machine"
)

// changeFlags are those of commands that change the root.
type changeFlags struct {
	solveFlags
	profile, dryRun bool
	trace           string
	effort          effort.Flags
}

func (f *changeFlags) register(c *cobra.Command) {
	f.solveFlags.register(c)
	c.Flags().BoolVarP(&f.Yes, "yes", "y", false, "change / even if this machine does not look ephemeral; let --store git: make its branch in the project's own repository")
	c.Flags().BoolVar(&f.profile, "profile", false, "also write /etc/profile.d/clayer.sh, which sets the environment in login shells")
	f.effort.Register(c)
	c.Flags().StringVar(&f.trace, "trace", "", "write a timeline to `FILE` in Chrome's trace format, for ui.perfetto.dev")
}

func (f *changeFlags) registerDryRun(c *cobra.Command) {
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "print what would be done, like plan, and change nothing")
}

func newSolve() *cobra.Command {
	var f changeFlags
	c := &cobra.Command{
		Use:   "solve [-f FILE]... [DIR]",
		Short: "Restore cached steps, build the rest, and apply them",
		Example: `  clayer solve --dest out                 # build into a directory; nothing else changes
  clayer solve -f Containerfile.mojo      # also solves the layer that its FROM names
  clayer solve -f docker/Dockerfile .     # COPY reads from this directory
  eval "$(clayer env)"                    # set the environment's variables in this shell`,
		RunE: func(cmd *cobra.Command, args []string) error {
			rest, err := f.Take(args)
			if err == nil && len(rest) > 0 {
				err = errhint.With(usage.Errorf("%s is no directory to copy from", rest[0]), "-f names a Containerfile, and clayer compose takes names of layers")
			}
			if err != nil {
				return err
			}
			return f.solve(cmd, f.FilesOrDefault(), false)
		},
	}
	f.register(c)
	f.RegisterFiles(c)
	settings.TakesFiles(c)
	f.registerDryRun(c)
	return c
}

func newCompose() *cobra.Command {
	var f changeFlags
	c := &cobra.Command{
		Use:   "compose [NAME|FILE]...",
		Short: "Solve several layers, in order",
		Long: `compose solves several layers in the given order; later layers win. A NAME is
looked up in layers/ and in the current directory: base is Containerfile, x is
Containerfile.x. Without arguments, compose solves the layers listed in the project's
clayer.toml, or else in .claude/container-layers.json, or else Containerfile.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := f.paths(cmd, args)
			if err != nil {
				return err
			}
			return f.solve(cmd, paths, false)
		},
	}
	f.register(c)
	f.registerDryRun(c)
	settings.TakesFiles(c)
	return c
}

func newBuild() *cobra.Command {
	return newSolveFiles("build [-f FILE]... FILE|DIR...", "Build all steps again, even if cached, and store them", true)
}

func newRestore() *cobra.Command {
	return newSolveFiles("restore [-f FILE]... FILE|DIR...", "Restore from a store, or build on a miss", false)
}

func newSolveFiles(use, short string, rebuild bool) *cobra.Command {
	var f changeFlags
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flag("file").Changed {
				return nil
			}
			return cobra.MinimumNArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := f.Take(args)
			if err != nil {
				return err
			}
			return f.solve(cmd, append(args, f.Files...), rebuild)
		},
	}
	f.register(c)
	f.RegisterFiles(c)
	settings.TakesFiles(c)
	return c
}

func (f *changeFlags) solve(cmd *cobra.Command, paths []string, rebuild bool) error {
	if f.dryRun {
		return f.plan(cmd, paths, "")
	}
	if f.dest == "" && isMachineRoot(f.root) && !f.Yes && machine.Ephemeral(os.Environ()) == "" {
		return errhint.With(usage.Errorf("this machine does not look ephemeral, and solve changes its root, /"),
			"--dest DIR collects all changes in a directory; --yes changes / anyway")
	}
	trace, err := f.openTrace()
	if err != nil {
		return err
	}
	f.live = true
	defer f.hide() // also when all of it panics
	opt, err := f.options(cmd, paths)
	opt.Rebuild, opt.Profile = rebuild, f.profile
	bounds, err := f.effort.Options(cmd, &opt, err)
	if err != nil {
		return err
	}
	if !opt.NoWait {
		shim.Wait(cmd.Context(), os.Getenv("PATH"), func(n shim.Note) { // the store lacks what is being packed
			if !f.quiet {
				fmt.Fprintf(cmd.ErrOrStderr(), "clayer: waiting for the snapshot of %s: %s\n", n.File, n.Text)
			}
		})
	}
	result, err := besteffort.Solve(cmd.Context(), opt, bounds)
	f.hide()
	var failed *solver.BuildError
	if errors.As(err, &failed) {
		f.suggest(cmd, failed, paths)
	}
	if trace != nil {
		if terr := errors.Join(f.record.WriteTrace(trace), trace.Close()); terr != nil {
			err = errors.Join(err, fmt.Errorf("--trace: %w", terr))
		}
	}
	if result == nil {
		return err
	}
	if f.progress != "json" {
		if verbose := cmd.Flag("verbose"); !f.quiet && (result.Took >= summarized || verbose != nil && verbose.Changed) {
			fmt.Fprint(cmd.ErrOrStderr(), f.record.Summary())
		}
		if result.Took > 0 {
			f.note(cmd, "%s in %s", result, ui.Duration(result.Took))
		}
		ui.WriteShortfall(cmd.ErrOrStderr(), result.Shortfall)
	}
	f.effort.Finish(cmd, opt, result, func(format string, args ...any) { f.note(cmd, format, args...) })
	if f.json {
		if err := ui.WriteJSON(cmd.OutOrStdout(), result); err != nil {
			return err
		}
	}
	return err
}

// summarized is how long a solve takes whose steps are summed up at its end.
const summarized = 2 * time.Second

// openTrace opens the file of --trace before anything is done; nil for none.
func (f *changeFlags) openTrace() (*os.File, error) {
	if f.trace == "" {
		return nil, nil
	}
	file, err := os.Create(f.trace)
	if err != nil {
		return nil, usage.Errorf("--trace: %w", err)
	}
	return file, nil
}

// isMachineRoot reports whether --root is /, under whatever name.
func isMachineRoot(root string) bool {
	if root == "" {
		return true
	}
	here, err1 := os.Stat(root)
	top, err2 := os.Stat("/")
	return err1 == nil && err2 == nil && os.SameFile(here, top)
}
