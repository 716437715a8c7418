package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/parse"
	"github.com/clayer/clayer/cmd/clayer/internal/settings"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/dag/render"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/internal/safefile"
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
			return f.plan(cmd, paths, graph)
		},
	}
	f.register(c)
	f.registerFiles(c)
	settings.TakesFiles(c)
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
		notePacking(cmd.ErrOrStderr())
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

func newCheck() *cobra.Command {
	var format string
	var fix, rules, asJSON bool
	var given []string
	c := &cobra.Command{
		Use:   "check [NAME|FILE]...",
		Short: "Report mistakes, costs and instructions without effect",
		Long: `check lints Containerfiles and the files that they copy, without using the
network or a store. The exit code is 0 if there are only notes, 1 if there are
warnings, and 2 if plan and solve would reject a file.

"# check=skip=RULE,RULE" at the top of a file turns off rules for the file, as
in BuildKit; above an instruction, for that instruction. Without arguments,
check reads Containerfile.`,
		Example: `  clayer check layers/Containerfile*
  clayer check --fix                          # apply the safe fixes
  clayer check --format=sarif > check.sarif   # for GitHub's code scanning`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if rules {
				return ui.WriteRules(cmd.OutOrStdout())
			}
			if asJSON {
				format = "json"
			}
			if !slices.Contains(ui.FindingFormats, format) {
				return usage.Errorf("--format=%s: want text, json or sarif", format)
			}
			if len(args) == 0 {
				args = []string{"Containerfile"}
			}
			paths, err := layers.Lookup(".", args, printed(cmd).Warn)
			if err != nil {
				return err
			}
			opt := solver.Options{Environ: os.Environ()}
			if opt.BuildArgs, err = parse.BuildArgs(given); err != nil {
				return err
			}
			findings, err := solver.Lint(cmd.Context(), opt, paths)
			if err == nil && fix {
				findings, err = applyFixes(cmd, opt, paths, findings)
			}
			if err != nil {
				return err
			}
			if err := ui.WriteFindings(cmd.OutOrStdout(), findings, format, buildVersion()); err != nil {
				return err
			}
			return exitOf(findings)
		},
	}
	c.Flags().StringArrayVar(&given, "build-arg", nil, buildArgUsage)
	c.Flags().StringVar(&format, "format", "text", "output `FORMAT`: text, json or sarif")
	c.Flags().BoolVar(&asJSON, "json", false, "same as --format=json")
	c.Flags().BoolVar(&fix, "fix", false, "apply the safe fixes, and report what is left")
	c.Flags().BoolVar(&rules, "rules", false, "list the rules")
	return c
}

func applyFixes(cmd *cobra.Command, opt solver.Options, paths []string, findings []lint.Finding) ([]lint.Finding, error) {
	for _, path := range paths {
		if _, ok := safefile.IsInput(path); ok {
			return nil, usage.Errorf("--fix changes a file, and %s is none", path)
		}
	}
	findings, fixed, err := solver.Fix(cmd.Context(), opt, paths, findings)
	for _, path := range slices.Sorted(maps.Keys(fixed)) {
		fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s: %d fixed\n", path, fixed[path])
	}
	return findings, err
}

// exitOf returns the error that findings end clayer check with.
func exitOf(findings []lint.Finding) error {
	has := func(l lint.Level) bool {
		return slices.ContainsFunc(findings, func(f lint.Finding) bool { return f.Level == l })
	}
	switch {
	case has(lint.Error):
		return usage.Error{Err: usage.ErrReported}
	case has(lint.Warning):
		return usage.ErrReported
	}
	return nil
}
