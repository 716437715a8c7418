package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/solver/doctor"
)

func newDoctor() *cobra.Command {
	var f storeFlags
	var asJSON, sandboxOnly bool
	var root string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Report what this machine can do, and what a solve will use",
		Long: `doctor tries everything that a solve may use: a sandbox, disk space, the network,
GitHub and the stores. You may not need all of it; each line with a problem says
how to fix it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, _, err := roots(root, "")
			if err != nil {
				return err
			}
			p := doctor.Patient{Root: cmp.Or(root, "/"), Environ: os.Environ(), Token: f.tokenName()}
			f.readOnly = true
			var failed []doctor.Finding
			t := tell{
				failed: func(store string, err error) {
					failed = append(failed, doctor.Finding{Area: "stores", Name: store, Text: err.Error(), Remedy: "a directory that can be written"})
				},
				warn: func(string) {},
			}
			if p.Cache, err = f.folder(t); err != nil {
				return err
			}
			if !f.offline && !sandboxOnly {
				if p.GitHub, err = f.github(t); err != nil {
					return err
				}
				if f.repo != "" {
					if p.Repo, err = github.ParseRepo(f.repo); err != nil {
						return usagef("--repo %w", err)
					}
				}
			} else {
				f.repo = ""
			}
			local, err := f.local(t)
			if err != nil {
				return err
			}
			if local != nil {
				p.Stores = []cache.Store{local}
			}
			far, err := f.far(t, nil)
			if err != nil {
				return err
			}
			p.Stores = append(p.Stores, far...)
			list := append(doctor.Examine(cmd.Context(), p), failed...)
			if sandboxOnly {
				list = slices.DeleteFunc(list, func(f doctor.Finding) bool { return f.Area != "sandbox" })
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			area := ""
			for _, f := range list {
				mark := "✓"
				if !f.OK {
					mark = "✗"
				}
				if f.Area != area {
					area = f.Area
					fmt.Fprintf(w, "%s\n", area)
				}
				fmt.Fprintf(w, "  %s %s\t%s\n", mark, f.Name, f.Text)
				if f.Remedy != "" {
					fmt.Fprintf(w, "  \t→ %s\n", f.Remedy)
				}
			}
			return w.Flush()
		},
	}
	f.register(c)
	c.Flags().BoolVar(&sandboxOnly, "sandbox", false, "check only how RUN can run here")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&root, "root", "", "check the complete root file system in `DIR` instead of /")
	return c
}

// tokenName says where the token comes from; "" where there is none.
func (f *storeFlags) tokenName() string {
	if f.token != "" {
		return "--token"
	}
	for _, name := range []string{"GH_TOKEN", "GITHUB_TOKEN"} {
		if os.Getenv(name) != "" {
			return name
		}
	}
	return ""
}
