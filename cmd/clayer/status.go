package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/effort"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/shim"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

func newStatus() *cobra.Command {
	var f solveFlags
	var exitCode, report bool
	c := &cobra.Command{
		Use:   "status [--exit-code [-f FILE]... [NAME|FILE]...]",
		Short: "Print what is applied to the root",
		Long: `status prints what is applied to the root. With --exit-code it compares that with
the Containerfiles, as solve does, and exits with 1 if a solve would change
something, or if packages were installed by hand since clayer changed this root
first, or removed that a step had installed. status never waits and changes nothing.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if exitCode {
				return f.compareRoot(cmd, args)
			}
			if len(args)+len(f.Files) > 0 {
				return usage.Errorf("status takes files with --exit-code alone")
			}
			var opt solver.Options
			if err := f.rootFlags.fill(&opt); err != nil {
				return err
			}
			opt.Durability = f.Sync.Setting()
			st, err := solver.Status(opt)
			if err != nil {
				return err
			}
			if st.ByHand, err = solver.ByHand(opt); err != nil {
				return err
			}
			if st.CutOff {
				fmt.Fprintf(cmd.ErrOrStderr(), "clayer: a command is changing %s, or was cut off: this is what was applied before\n", st.Root)
			}
			if report {
				return f.print(cmd, st.Shortfall, func(w io.Writer) { ui.WriteReport(w, st) })
			}
			shim.WriteNotes(cmd.ErrOrStderr(), st)
			if opt.Cache, err = f.CacheDirectory(); err == nil {
				effort.Note(cmd.ErrOrStderr(), opt)
			}
			return f.print(cmd, st, func(w io.Writer) { ui.WriteStatus(w, st) })
		},
	}
	f.register(c)
	f.RegisterFiles(c)
	settings.TakesFiles(c)
	c.Flags().BoolVar(&report, "report", false, "print what the last solve with --best-effort left out, and why")
	c.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 1 if the root does not match the Containerfiles")
	return c
}

// compareRoot prints whether a solve of the files would change the root.
func (f *solveFlags) compareRoot(cmd *cobra.Command, args []string) error {
	paths, err := f.paths(cmd, args)
	if err != nil {
		return err
	}
	opt, err := f.options(cmd, paths)
	if err != nil {
		return err
	}
	drift, err := solver.Drift(cmd.Context(), opt)
	if err != nil {
		return err
	}
	err = f.print(cmd, drift, func(w io.Writer) {
		if !f.quiet {
			ui.WriteDrift(w, drift)
		}
	})
	if err == nil && drift.Differs {
		err = usage.ErrReported
	}
	return err
}

func newDiff() *cobra.Command {
	var f appliedFlags
	var all bool
	c := &cobra.Command{
		Use:   "diff",
		Short: "List what else changed in the root since the last solve",
		Long: `diff prints, as a tree with sizes, what changed in the root since the last solve,
without the changes that clayer made. A new directory is one line; --all lists its
contents. If a file that no step made is deleted, its directory shows as changed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt, err := f.options(cmd)
			if err != nil {
				return err
			}
			files, err := solver.Diff(cmd.Context(), opt)
			if err != nil {
				return err
			}
			files = append([]drift.FileState{}, files...) // JSON has no null
			return f.print(cmd, files, func(w io.Writer) { ui.WriteTree(w, files, all) })
		},
	}
	f.register(c)
	c.Flags().BoolVar(&all, "all", false, "list the contents of new directories")
	return c
}

func newUndo() *cobra.Command {
	var f appliedFlags
	var sync stores.Sync
	var to string
	c := &cobra.Command{
		Use:   "undo [--to LAYER]",
		Short: "Undo what was applied, and restore the root as it was before",
		Long: `undo removes what was applied, the last step first, and restores what it replaced
or deleted. Files that have changed since are preserved and listed; --force undoes
them too.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt, err := f.options(cmd)
			if err != nil {
				return err
			}
			opt.Durability = sync.Setting()
			res, err := solver.Undo(cmd.Context(), opt, to)
			var unknown *solver.UnknownLayerError
			if errors.As(err, &unknown) {
				return usage.Errorf("--to: %w", err)
			}
			if res == nil {
				return err
			}
			if f.json {
				if err := ui.WriteJSON(cmd.OutOrStdout(), res); err != nil {
					return err
				}
			}
			if f.progress != "json" {
				f.note(cmd, "%s", ui.Undone(res))
			}
			return err
		},
	}
	f.register(c)
	sync.Register(c.Flags())
	c.Flags().StringVar(&to, "to", "", "undo what was applied after `LAYER`, but not LAYER itself")
	c.Flags().BoolVar(&f.force, "force", false, "also undo files that have changed since")
	c.Flags().BoolVar(&f.noWait, "no-wait", false, "fail immediately if another command is changing this root")
	return c
}
