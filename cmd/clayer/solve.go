package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/machine"
)

func newSolve() *cobra.Command {
	var f solveFlags
	c := &cobra.Command{
		Use:   "solve [-f FILE]...",
		Short: "Restore cached steps, build the rest, and apply them",
		Example: `  clayer solve --dest out                 # build into a directory; nothing else changes
  clayer solve -f Containerfile.mojo      # also solves the layer that its FROM names
  eval "$(clayer env)"                    # set the environment's variables in this shell`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(f.files) == 0 {
				f.files = []string{"Containerfile"}
			}
			return f.solve(cmd, f.files, false)
		},
	}
	f.register(c)
	f.registerFiles(c)
	f.registerYes(c)
	f.registerTrace(c)
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "print what would be done, like plan, and change nothing")
	return c
}

func newCompose() *cobra.Command {
	var f solveFlags
	c := &cobra.Command{
		Use:   "compose [NAME|FILE]...",
		Short: "Solve several layers, in order",
		Long: `compose solves several layers in the given order; later layers win. A NAME is
looked up in layers/ and in the current directory: base is Containerfile, x is
Containerfile.x. Without arguments, compose solves the layers listed in
.claude/container-layers.json, or Containerfile if that file does not exist.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := f.paths(args)
			if err != nil {
				return err
			}
			return f.solve(cmd, paths, false)
		},
	}
	f.register(c)
	f.registerYes(c)
	f.registerTrace(c)
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "print what would be done, like plan, and change nothing")
	return c
}

func newBuild() *cobra.Command {
	var f solveFlags
	c := &cobra.Command{
		Use:   "build FILE...",
		Short: "Build all steps again, even if cached, and store them",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return f.solve(cmd, args, true) },
	}
	f.register(c)
	f.registerYes(c)
	f.registerTrace(c)
	return c
}

func newRestore() *cobra.Command {
	var f solveFlags
	c := &cobra.Command{
		Use:   "restore FILE...",
		Short: "Restore from a store, or build on a miss",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return f.solve(cmd, args, false) },
	}
	f.register(c)
	f.registerYes(c)
	f.registerTrace(c)
	return c
}

func (f *solveFlags) solve(cmd *cobra.Command, paths []string, rebuild bool) error {
	if f.dryRun {
		return f.plan(cmd, paths, "")
	}
	if f.dest == "" && isMachineRoot(f.root) && !f.yes && machine.Ephemeral(os.Environ()) == "" {
		return errhint.With(usagef("this machine does not look ephemeral, and solve changes its root, /"),
			"--dest DIR keeps all changes in a folder; --yes changes / all the same")
	}
	trace, err := f.openTrace()
	if err != nil {
		return err
	}
	f.live = true
	defer f.hide() // also when all of it panics
	opt, err := f.options(cmd, paths)
	if err != nil {
		return err
	}
	opt.Rebuild = rebuild
	result, err := solver.Solve(cmd.Context(), opt)
	f.hide()
	var failed *solver.BuildError
	if errors.As(err, &failed) {
		f.suggest(cmd, failed)
	}
	if trace != nil {
		if terr := errors.Join(f.record.WriteTrace(trace), trace.Close()); terr != nil {
			err = errors.Join(err, fmt.Errorf("--trace: %w", terr))
		}
	}
	if result != nil {
		if !f.quiet && f.progress != "json" {
			if verbose := cmd.Flag("verbose"); result.Took >= worthTelling || verbose != nil && verbose.Changed {
				fmt.Fprint(cmd.ErrOrStderr(), f.record.Summary())
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s in %s\n", result, ui.Duration(result.Took))
		}
		if f.json {
			if err := writeJSON(cmd.OutOrStdout(), result); err != nil {
				return err
			}
		}
	}
	return err
}

func (f *solveFlags) registerTrace(c *cobra.Command) {
	c.Flags().StringVar(&f.trace, "trace", "", "write a timeline to `FILE` in Chrome's trace format, for ui.perfetto.dev")
}

// worthTelling is how long a solve takes that people want to know more of.
const worthTelling = 2 * time.Second

// openTrace opens the file of --trace before anything is done; nil for none.
func (f *solveFlags) openTrace() (*os.File, error) {
	if f.trace == "" {
		return nil, nil
	}
	file, err := os.Create(f.trace)
	if err != nil {
		return nil, usagef("--trace: %w", err)
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

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
