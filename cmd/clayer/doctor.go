package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/solver/sandbox"
)

func newDoctor() *cobra.Command {
	var asJSON, sandboxOnly bool
	var root string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can do, and what will be used",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, _, err := roots(root, "")
			if err != nil {
				return err
			}
			if root == "" {
				root = "/"
			}
			list := sandbox.Diagnose(sandbox.Options{Root: root}, os.TempDir())
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, f := range list {
				mark := "ok"
				if !f.OK {
					mark = "no"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", mark, f.Name, f.Text)
				if f.Remedy != "" {
					fmt.Fprintf(w, "\t\t→ %s\n", f.Remedy)
				}
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&sandboxOnly, "sandbox", true, "how RUN can be run here, and why not otherwise")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.Flags().StringVar(&root, "root", "", "a complete root file system, in place of /")
	return c
}
