// Package checkcmd is clayer check: it lints Containerfiles, and fixes what is safe to fix.
package checkcmd

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/buildcontext"
	"github.com/clayer/clayer/cmd/clayer/internal/parse"
	"github.com/clayer/clayer/cmd/clayer/internal/stores"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/findings"
	"github.com/clayer/clayer/solver/layers"
)

// New returns the command. buildArg is the usage of --build-arg, and printed what prints
// warnings.
func New(buildArg, version string, printed func(*cobra.Command) stores.Notices) *cobra.Command {
	var format string
	var fix, rules, asJSON bool
	var given []string
	var f buildcontext.Flags
	c := &cobra.Command{
		Use:   "check [-f FILE]... [NAME|FILE|DIR]...",
		Short: "Report mistakes, costs and instructions without effect",
		Long: `check lints Containerfiles and the files that they copy, without using the
network or a store. The exit code is 0 if there are only notes, 1 if there are
warnings, and 2 if plan and solve would reject a file.

"# check=skip=RULE,RULE" at the top of a file turns off rules for the file, as
in BuildKit; above an instruction, for that instruction. Without arguments,
check reads Containerfile, or Dockerfile if there is none. DIR is what COPY reads from,
as for solve, and has the Containerfile if no other is named.`,
		Example: `  clayer check layers/Containerfile*
  clayer check docker/Dockerfile .            # COPY reads from this directory
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
			if args, err = f.Take(args); err != nil {
				return err
			}
			paths := f.Files
			if len(args)+len(paths) == 0 {
				paths = f.FilesOrDefault()
			}
			for _, text := range f.Notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s\n", text)
			}
			if len(args) > 0 {
				more, err := layers.Lookup(".", args, printed(cmd).Warn)
				if err != nil {
					return err
				}
				paths = append(paths, more...)
			}
			opt := solver.Options{Environ: os.Environ()}
			if opt.BuildArgs, err = parse.BuildArgs(given); err != nil {
				return err
			}
			var unused []string
			read := findings.Reading{Prepare: func(files []*frontend.File, all bool) error {
				if all {
					unused = f.Unused(files)
				}
				return parse.StageBases(f.StageBases, files, all)
			}}
			if read.Options, err = f.Options(frontend.Args{Build: opt.BuildArgs}); err != nil {
				return err
			}
			look := func() ([]lint.Finding, error) { return findings.Of(cmd.Context(), opt, paths, read) }
			found, err := look()
			for _, text := range unused {
				printed(cmd).Warn(text)
			}
			if err == nil && fix {
				found, err = applyFixes(cmd, paths, found, look)
			}
			if err != nil {
				return err
			}
			if err := ui.WriteFindings(cmd.OutOrStdout(), found, format, version); err != nil {
				return err
			}
			return exitOf(found)
		},
	}
	c.Flags().StringArrayVar(&given, "build-arg", nil, buildArg)
	f.Register(c)
	f.RegisterFiles(c)
	c.Flags().StringVar(&format, "format", "text", "output `FORMAT`: text, json or sarif")
	c.Flags().BoolVar(&asJSON, "json", false, "same as --format=json")
	c.Flags().BoolVar(&fix, "fix", false, "apply the safe fixes, and report what is left")
	c.Flags().BoolVar(&rules, "rules", false, "list the rules")
	return c
}

func applyFixes(cmd *cobra.Command, paths []string, found []lint.Finding, look func() ([]lint.Finding, error)) ([]lint.Finding, error) {
	for _, path := range paths {
		if _, ok := safefile.IsInput(path); ok {
			return nil, usage.Errorf("--fix changes a file, and %s is none", path)
		}
	}
	found, fixed, err := lint.FixFiles(cmd.Context(), paths, found, look)
	for _, path := range slices.Sorted(maps.Keys(fixed)) {
		fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s: %d fixed\n", path, fixed[path])
	}
	return found, err
}

// exitOf returns the error that findings end clayer check with.
func exitOf(found []lint.Finding) error {
	has := func(l lint.Level) bool {
		return slices.ContainsFunc(found, func(f lint.Finding) bool { return f.Level == l })
	}
	switch {
	case has(lint.Error):
		return usage.Error{Err: usage.ErrReported}
	case has(lint.Warning):
		return usage.ErrReported
	}
	return nil
}
