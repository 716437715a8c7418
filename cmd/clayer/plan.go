package main

import (
	"github.com/spf13/cobra"

	"github.com/clayer/clayer/dag/render"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/layers"
	"github.com/clayer/clayer/solver/report"
)

func newPlan() *cobra.Command {
	var f solveFlags
	var graph string
	var page bool
	c := &cobra.Command{
		Use:   "plan [-f FILE]... [NAME|FILE]...",
		Short: "Print what solve would do, and why",
		Example: `  clayer plan base mojo
  clayer plan --html base mojo > plan.html     # a page with the graph; opens in any browser
  clayer plan --graph=mermaid                  # for Markdown on GitHub`,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := f.paths(args)
			if err != nil {
				return err
			}
			if page {
				if graph != "" && graph != "html" {
					return usagef("--html and --graph=%s don't go together", graph)
				}
				graph = "html"
			}
			return f.plan(cmd, paths, graph)
		},
	}
	f.register(c)
	f.registerFiles(c)
	c.Flags().StringVar(&graph, "graph", "", "print a graph instead of a list, in `FORMAT` dot, mermaid or svg")
	c.Flags().BoolVar(&page, "html", false, "print a self-contained HTML page with the graph and the steps")
	return c
}

// paths returns the files of -f and of the arguments, which may be names.
func (f *solveFlags) paths(args []string) ([]string, error) {
	if len(args) == 0 && len(f.files) > 0 {
		return f.files, nil
	}
	more, err := layers.Lookup(".", args, func(text string) { f.notes = append(f.notes, text) })
	return append(f.files, more...), err
}

func (f *solveFlags) plan(cmd *cobra.Command, paths []string, graph string) error {
	write := render.Text
	switch {
	case graph == "" && f.json:
		write = render.JSON
	case graph == "dot":
		write = render.DOT
	case graph == "mermaid":
		write = render.Mermaid
	case graph == "svg":
		write = render.SVG
	case graph == "html":
		write = render.HTML
	case graph != "":
		return usagef("--graph=%s: want dot, mermaid or svg", graph)
	}
	f.readOnly, f.live = true, true
	defer f.hide()
	opt, err := f.options(cmd, paths)
	if err != nil {
		return err
	}
	p, err := solver.Plan(cmd.Context(), opt)
	f.hide()
	if err != nil {
		return err
	}
	if err := write(cmd.OutOrStdout(), p); err != nil {
		return err
	}
	text, err := solver.PlannedSandbox(opt, p)
	if err != nil {
		return err
	}
	if text != "" && !f.quiet {
		opt.Report.Emit(report.Event{Kind: report.Sandbox, Text: text})
	}
	return nil
}
