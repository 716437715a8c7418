package main

import (
	"cmp"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/doctor"
)

func newDoctor() *cobra.Command {
	var f storeFlags
	var asJSON, sandboxOnly bool
	var root rootFlags
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Report what this machine can do, and what a solve will use",
		Long: `doctor tries everything that a solve may use: a sandbox, disk space, the network,
GitHub and the stores. You may not need all of it; each line with a problem says
how to fix it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var opt solver.Options
			if err := root.fill(&opt); err != nil {
				return err
			}
			list, err := f.examine(cmd, doctor.Target{Root: cmp.Or(opt.Root, "/"), Environ: os.Environ(), Token: f.TokenName()}, sandboxOnly)
			if err != nil {
				return err
			}
			if !sandboxOnly {
				list, err = withByHand(list, opt)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return ui.WriteJSON(cmd.OutOrStdout(), list)
			}
			return ui.WriteExamination(cmd.OutOrStdout(), list)
		},
	}
	f.register(c)
	c.Flags().BoolVar(&sandboxOnly, "sandbox", false, "check only how RUN can run here")
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

// examine fills in what the flags say about t, and examines it.
func (f *storeFlags) examine(cmd *cobra.Command, t doctor.Target, sandboxOnly bool) (list []doctor.Finding, err error) {
	var failed []doctor.Finding
	f.ReadOnly = true
	f.Notices = stores.Notices{
		StoreFailed: func(store string, err error) {
			failed = append(failed, doctor.Finding{Area: "stores", Name: store, Text: err.Error(), Remedy: "a directory that can be written"})
		},
		Warn: func(string) {},
	}
	if t.Cache, err = f.CacheDirectory(); err != nil {
		return nil, err
	}
	if f.Offline || sandboxOnly {
		f.Repo = ""
	} else if t.GitHub, err = f.GitHub(); err != nil {
		return nil, err
	}
	if f.Repo != "" {
		if t.Repo, err = f.Repository(); err != nil {
			return nil, err
		}
	}
	local, err := f.Local()
	if err != nil {
		return nil, err
	}
	if local != nil {
		t.Stores = []cache.Store{local}
	}
	named, err := f.Named(nil)
	if err != nil {
		return nil, err
	}
	t.Stores = append(t.Stores, named...)
	list = ui.NameFlags(append(doctor.Examine(cmd.Context(), t), failed...))
	if sandboxOnly {
		list = slices.DeleteFunc(list, func(f doctor.Finding) bool { return f.Area != "sandbox" })
	}
	return list, nil
}
