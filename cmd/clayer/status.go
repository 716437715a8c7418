package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/rootfs"
)

func newStatus() *cobra.Command {
	var f solveFlags
	c := &cobra.Command{
		Use:   "status",
		Short: "Print what is applied to the root",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, dest, err := roots(f.root, f.dest)
			if err != nil {
				return err
			}
			st, err := solver.Status(&solver.Request{Root: root, Dest: dest})
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if f.json {
				return writeJSON(w, st)
			}
			if len(st.State.Layers) == 0 {
				fmt.Fprintf(w, "%s   nothing applied\n", st.Root)
				return nil
			}
			fmt.Fprintf(w, "%s   %s\n", st.Root, st.State.Platform)
			for _, l := range st.State.Layers {
				var entries int
				var bytes int64
				for _, s := range l.Steps {
					entries += s.Entries
					bytes += s.Bytes
				}
				fmt.Fprintf(w, "%-12s  %s   %d steps   %d changes   %s   %s\n", l.Name, shortKey(l), len(l.Steps), entries,
					dag.Size(bytes), appliedAt(l))
			}
			return nil
		},
	}
	c.Flags().StringVar(&f.root, "root", "", "the root file system, in place of /")
	c.Flags().StringVar(&f.dest, "dest", "", "the folder that changes went to")
	c.Flags().BoolVar(&f.json, "json", false, "as JSON")
	return c
}

func shortKey(l rootfs.Layer) string {
	if len(l.Steps) == 0 {
		return "-"
	}
	return l.Steps[len(l.Steps)-1].Key.Short()
}

func appliedAt(l rootfs.Layer) string {
	if len(l.Steps) == 0 {
		return ""
	}
	return l.Steps[len(l.Steps)-1].At.Local().Format("2006-01-02 15:04")
}
