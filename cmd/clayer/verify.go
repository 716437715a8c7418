package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/rebuilt"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/solver"
)

func newVerify() *cobra.Command {
	var f solveFlags
	var again bool
	c := &cobra.Command{
		Use:   "verify [--rebuild [-f FILE]... [STEP]]",
		Short: "List applied files that have changed",
		Long: `verify compares every applied file, including its content, with what was applied.
It prints the files that have changed or are missing, and exits with 1 if there
are any, or if a step needs a package that is gone. It also prints which packages
were installed by hand. --json prints all files.

With --rebuild it builds the steps of the Containerfiles again, in an overlay, each on
what the stores have of those before it, and compares the bytes with what the stores
have of it. It lists what differs, and exits with 1 if anything does. STEP is one step
alone: a line, or LAYER:LINE. Nothing is applied, or stored.`,
		Example: `  clayer verify
  clayer verify --rebuild           # all steps of the Containerfiles
  clayer verify --rebuild 4         # the step in line 4
  clayer verify --rebuild mojo:4`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if again {
				return f.rebuild(cmd, args)
			}
			if len(args)+len(f.Files) > 0 {
				return usage.Errorf("verify takes files, and a step, with --rebuild alone")
			}
			var opt solver.Options
			if err := errors.Join(f.show(cmd, &opt), f.rootFlags.fill(&opt)); err != nil {
				return err
			}
			files, err := solver.Verify(cmd.Context(), opt)
			if err != nil {
				return err
			}
			v := ui.NewVerified(files)
			if v.ByHand, err = solver.ByHand(opt); err != nil {
				return err
			}
			if v.Unmet, err = solver.Unmet(opt); err != nil {
				return err
			}
			if err := f.print(cmd, v, v.Text); err != nil {
				return err
			}
			if !f.json {
				f.note(cmd, "%d as applied, %d changed, %d missing", v.AsApplied, v.Changed, v.Missing)
				if len(v.ByHand) > 0 {
					f.note(cmd, "%s", ui.ByHand(v.ByHand))
				}
			}
			if v.Changed+v.Missing+len(v.Unmet) > 0 {
				return usage.ErrReported
			}
			return nil
		},
	}
	f.register(c)
	f.RegisterFiles(c)
	c.Flags().BoolVar(&again, "rebuild", false, "build steps again, and compare the bytes with what the stores have")
	return c
}

// rebuild builds steps again, and prints what differs.
func (f *solveFlags) rebuild(cmd *cobra.Command, args []string) error {
	paths, err := f.paths(cmd, nil)
	if err != nil {
		return err
	}
	opt, err := f.options(cmd, paths)
	if err != nil {
		return err
	}
	r, err := rebuilt.Of(cmd.Context(), opt, args)
	if err == nil {
		err = f.print(cmd, r, r.Text)
	}
	if err != nil {
		return err
	}
	f.note(cmd, "%s", r)
	return r.Err()
}
