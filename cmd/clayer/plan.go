package main

import (
	"github.com/spf13/cobra"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver"
)

func newPlan() *cobra.Command {
	var f solveFlags
	var graph string
	c := &cobra.Command{
		Use:   "plan [-f FILE]... [NAME|FILE]...",
		Short: "Say what solve would do, and why; change nothing",
		RunE: func(cmd *cobra.Command, args []string) error {
			paths := f.files
			if len(args) > 0 || len(paths) == 0 {
				more, err := solver.Lookup(".", args)
				if err != nil {
					return err
				}
				paths = append(paths, more...)
			}
			return f.plan(cmd, paths, graph)
		},
	}
	f.register(c)
	f.registerFiles(c)
	c.Flags().StringVar(&graph, "graph", "", "the graph in place of the list: dot or mermaid")
	return c
}

func (f *solveFlags) plan(cmd *cobra.Command, paths []string, graph string) error {
	write := (*dag.Plan).WriteText
	switch {
	case graph == "" && f.json:
		write = (*dag.Plan).WriteJSON
	case graph == "dot":
		write = (*dag.Plan).WriteDOT
	case graph == "mermaid":
		write = (*dag.Plan).WriteMermaid
	case graph != "":
		return usagef("--graph=%s: want dot or mermaid", graph)
	}
	f.readOnly = true
	r, err := f.request(cmd, paths)
	if err != nil {
		return err
	}
	p, err := solver.Plan(cmd.Context(), r)
	if err != nil {
		return err
	}
	return write(p, cmd.OutOrStdout())
}
