package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/rootfs/record"
)

func newStatus() *cobra.Command {
	var f solveFlags
	var exitCode bool
	c := &cobra.Command{
		Use:   "status [--exit-code [-f FILE]... [NAME|FILE]...]",
		Short: "Print what is applied to the root",
		Long: `status prints what is applied to the root. With --exit-code it compares that with
the Containerfiles, as solve does, and exits with 1 if a solve would change
something; use this in hooks. status never waits and changes nothing.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if exitCode {
				return f.drift(cmd, args)
			}
			if len(args)+len(f.files) > 0 {
				return usagef("status takes files with --exit-code alone")
			}
			root, dest, err := roots(f.root, f.dest)
			if err != nil {
				return err
			}
			st, err := solver.Status(solver.Options{Root: root, Dest: dest})
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if st.CutOff {
				fmt.Fprintf(cmd.ErrOrStderr(), "clayer: a command is changing %s, or was cut off: this is what was applied before\n", st.Root)
			}
			if f.json {
				return writeJSON(w, st)
			}
			if len(st.State.Layers) == 0 {
				fmt.Fprintf(w, "%s   nothing applied\n", st.Root)
				return nil
			}
			fmt.Fprintf(w, "%s   %s\n", st.Root, printable.Line(st.State.Platform))
			for _, l := range st.State.Layers {
				var entries int
				var bytes int64
				for _, s := range l.Steps {
					entries += s.Entries
					bytes += s.Bytes
				}
				fmt.Fprintf(w, "%-12s  %s   %s   %s   %s   %s\n", printable.Line(l.Name), shortKey(l), sizes.Count(len(l.Steps), "step"), sizes.Count(entries, "change"),
					sizes.Format(bytes), appliedAt(l))
			}
			return nil
		},
	}
	f.register(c)
	f.registerFiles(c)
	c.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 1 if the root does not match the Containerfiles")
	return c
}

// drift tells whether a solve of the files would change the root.
func (f *solveFlags) drift(cmd *cobra.Command, args []string) error {
	paths, err := f.paths(args)
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
	w := cmd.OutOrStdout()
	if f.json {
		if err := writeJSON(w, drift); err != nil {
			return err
		}
	} else if !f.quiet {
		for _, l := range drift.Layers {
			fmt.Fprintf(w, "%-12s  %s\n", printable.Line(l.Name), printable.Line(l.Text))
		}
	}
	if drift.Differs {
		return errSaid
	}
	return nil
}

func shortKey(l record.Layer) string {
	if len(l.Steps) == 0 {
		return "-"
	}
	return l.Steps[len(l.Steps)-1].Key.Short()
}

func appliedAt(l record.Layer) string {
	if len(l.Steps) == 0 {
		return ""
	}
	return l.Steps[len(l.Steps)-1].At.Local().Format("2006-01-02 15:04")
}
