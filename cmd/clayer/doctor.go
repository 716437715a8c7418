package main

import (
	"cmp"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/doctor"
)

func newDoctor() *cobra.Command {
	var f storeFlags
	var asJSON, sandboxOnly, storesOnly bool
	var root rootFlags
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Report what this machine can do, and what a solve will use",
		Long: `doctor tries everything that a solve may use: a sandbox, disk space, the network,
GitHub and the stores. You may not need all of it; each line with a problem says
how to fix it.

--stores tries the stores alone, each of them: what it lists, how fast it gives a
snapshot, and whether it can be written to, where nothing of the trial stays.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var opt solver.Options
			if err := root.fill(&opt); err != nil {
				return err
			}
			look := doctor.Examine
			if storesOnly {
				look = doctor.Stores
			}
			t := doctor.Target{Root: cmp.Or(opt.Root, "/"), Environ: os.Environ()}
			failed, err := f.Target(&t, !sandboxOnly)
			if err != nil {
				return err
			}
			list := ui.NameFlags(append(look(cmd.Context(), t), failed...))
			if sandboxOnly {
				list = slices.DeleteFunc(list, func(f doctor.Finding) bool { return f.Area != "sandbox" })
			}
			if !sandboxOnly && !storesOnly {
				list, err = withByHand(list, opt)
			}
			if err != nil {
				return err
			}
			write := ui.WriteExamination
			if asJSON {
				write = func(w io.Writer, list []doctor.Finding) error { return ui.WriteJSON(w, list) }
			}
			if err := write(cmd.OutOrStdout(), list); err != nil {
				return err
			}
			if storesOnly && slices.ContainsFunc(list, func(f doctor.Finding) bool { return !f.OK && f.Area != "hosts" }) {
				return errors.Join(usage.ErrReported, solver.ErrStore)
			}
			return nil
		},
	}
	f.register(c)
	c.Flags().BoolVar(&sandboxOnly, "sandbox", false, "check only how RUN can run here")
	c.Flags().BoolVar(&storesOnly, "stores", false, "try each store (read, speed, write), and list what the hosts answer; exit with 3 if a store fails")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&root.root, "root", "", "check the complete root file system in `DIR` instead of /")
	return c
}

// withByHand adds what was installed by hand in a root that clayer has seen.
func withByHand(list []doctor.Finding, opt solver.Options) ([]doctor.Finding, error) {
	installed, err := solver.ByHand(opt)
	if len(installed) > 0 {
		list = append(list, doctor.Finding{Area: "root", Name: "packages", Text: ui.ByHand(installed), Remedy: "clayer capture: other machines lack it, and what is built on it may not work there"})
	}
	return list, err
}
