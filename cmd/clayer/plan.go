package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/fleet"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/shim"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/dag/render"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/elsewhere"
	"github.com/clayer/clayer/solver/report"
)

func newPlan() *cobra.Command {
	var f solveFlags
	var graph, as string
	var page bool
	c := &cobra.Command{
		Use:   "plan [-f FILE]... [NAME|FILE|DIR]...",
		Short: "Print what solve would do, and why",
		Example: `  clayer plan base mojo
  clayer plan --html base mojo > plan.html     # a page with the graph; opens in any browser
  clayer plan --graph=mermaid                  # for Markdown on GitHub
  clayer plan --as 'linux/amd64 ubuntu 24.04 python3.12' --repo me/env`,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := f.Take(args)
			if err != nil {
				return err
			}
			paths, err := f.paths(cmd, args)
			if err != nil {
				return err
			}
			if page {
				if graph != "" && graph != "html" {
					return usage.Errorf("--html and --graph=%s don't go together", graph)
				}
				graph = "html"
			}
			if cmd.Flag("as").Changed {
				return f.planAs(cmd, paths, as, graph)
			}
			return f.plan(cmd, paths, graph)
		},
	}
	f.register(c)
	f.RegisterFiles(c)
	settings.TakesFiles(c)
	c.Flags().StringVar(&as, "as", "", "say what a new machine of `PLATFORM`, or on the base oci-layout:DIR, would restore, and list what it has to have for that")
	c.Flags().StringVar(&graph, "graph", "", "print a graph instead of a list, in `FORMAT` dot, mermaid or svg")
	c.Flags().BoolVar(&page, "html", false, "print a self-contained HTML page with the graph and the steps")
	return c
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
		return usage.Errorf("--graph=%s: want dot, mermaid or svg", graph)
	}
	f.ReadOnly, f.live = true, true
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
	if !f.quiet {
		shim.WritePacking(cmd.ErrOrStderr())
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

// planAs prints what another machine would do.
func (f *solveFlags) planAs(cmd *cobra.Command, paths []string, as, graph string) error {
	platform, err := fleet.Platform(as)
	if err == nil && graph != "" {
		err = usage.Errorf("--as and --graph don't go together")
	}
	if err != nil {
		return err
	}
	f.ReadOnly, f.live = true, true
	f.platform, _, _ = strings.Cut(platform, " ")
	defer f.hide()
	opt, err := f.options(cmd, paths)
	if err != nil {
		return err
	}
	r, err := elsewhere.Plan(cmd.Context(), opt, platform)
	f.hide()
	if err != nil {
		return err
	}
	return f.print(cmd, r, func(w io.Writer) { fleet.Write(w, r) })
}

func newHash() *cobra.Command {
	var f solveFlags
	var full, legacy bool
	c := &cobra.Command{
		Use:   "hash FILE...",
		Short: "Print the tag of each layer, and one hash for several layers",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.ReadOnly = true
			opt, err := f.options(cmd, args)
			if err != nil {
				return err
			}
			if legacy {
				tags, err := solver.LegacyTags(cmd.Context(), opt, func(*frontend.File) bool { return len(args) > 1 || len(f.names) > 0 })
				for _, tag := range tags {
					fmt.Fprintln(cmd.OutOrStdout(), tag)
				}
				return err
			}
			g, keys, err := solver.Hash(cmd.Context(), opt)
			if err != nil {
				return err
			}
			hashes := ui.NewHashes(g, keys)
			return f.print(cmd, hashes, func(w io.Writer) { hashes.Text(w, full) })
		},
	}
	f.register(c)
	settings.TakesFiles(c)
	c.Flags().BoolVar(&legacy, "legacy", false, "print the tags that container-layer, clayer's predecessor, gives the files")
	c.Flags().BoolVar(&full, "full", false, "print whole keys and the files instead of tags")
	return c
}

func newInspect() *cobra.Command {
	var f solveFlags
	c := &cobra.Command{
		Use:   "inspect FILE...",
		Short: "Print the parsed instructions with their keys",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.ReadOnly = true
			opt, err := f.options(cmd, args)
			if err != nil {
				return err
			}
			g, keys, err := solver.Hash(cmd.Context(), opt)
			if err != nil {
				return err
			}
			snapshots, err := solver.Snapshots(cmd.Context(), opt, g, keys)
			if err != nil {
				return err
			}
			all := ui.Inspect(g, keys, snapshots)
			return f.print(cmd, all, func(w io.Writer) { ui.WriteInspections(w, all) })
		},
	}
	f.register(c)
	settings.TakesFiles(c)
	return c
}
