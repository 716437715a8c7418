package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/lint"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/layers"
)

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
		RunE: func(cmd *cobra.Command, args []string) error {
			if rules {
				return writeRules(cmd.OutOrStdout())
			}
			if asJSON {
				format = "json"
			}
			if !slices.Contains([]string{"text", "json", "sarif"}, format) {
				return usagef("--format=%s: want text, json or sarif", format)
			}
			if len(args) == 0 {
				args = []string{"Containerfile"}
			}
			paths, err := layers.Lookup(".", args, telling(cmd).warn)
			if err != nil {
				return err
			}
			c := checker{paths: paths}
			if c.buildArgs, err = buildArgs(given); err != nil {
				return err
			}
			findings, err := c.check(cmd.Context())
			if err != nil {
				return err
			}
			if fix {
				if findings, err = c.fixAll(cmd.Context(), cmd.ErrOrStderr(), findings); err != nil {
					return err
				}
			}
			return writeFindings(cmd.OutOrStdout(), findings, format)
		},
	}
	c.Flags().StringArrayVar(&given, "build-arg", nil, "set an ARG by `NAME=VALUE`; NAME alone takes the value from the environment (repeatable)")
	c.Flags().StringVar(&format, "format", "text", "output `FORMAT`: text, json or sarif")
	c.Flags().BoolVar(&asJSON, "json", false, "same as --format=json")
	c.Flags().BoolVar(&fix, "fix", false, "apply the safe fixes, and report what is left")
	c.Flags().BoolVar(&rules, "rules", false, "list the rules")
	return c
}

// A checker checks the files at paths.
type checker struct {
	paths     []string
	buildArgs map[string]string
}

// check returns the findings in the files, what plan refuses among them.
func (c *checker) check(ctx context.Context) ([]lint.Finding, error) {
	files, err := layers.Load(ctx, c.paths, nil)
	if problems := (frontend.Problems)(nil); err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	findings := slices.DeleteFunc(lint.Check(files), func(f lint.Finding) bool {
		return !slices.Contains(c.paths, f.Pos.File) // siblings were loaded for what FROM brings
	})
	// Each file by itself: they need not be composed together. What is wrong with
	// one that it names by FROM is wrong for it too.
	var errs []lint.Finding
	for _, path := range c.paths {
		own, err := c.refused(ctx, path)
		if err != nil {
			return nil, err
		}
		for _, f := range own {
			if !slices.ContainsFunc(errs, func(g lint.Finding) bool { return g.Pos == f.Pos && g.Message == f.Message }) {
				errs = append(errs, f)
			}
		}
	}
	return append(errs, findings...), nil
}

// refused returns what plan refuses in a file.
func (c *checker) refused(ctx context.Context, path string) ([]lint.Finding, error) {
	opt := solver.Options{Environ: os.Environ(), BuildArgs: c.buildArgs}
	var err error
	opt.Files, err = layers.Load(ctx, []string{path}, nil)
	var syntax frontend.Problems
	if err != nil && !errors.As(err, &syntax) {
		return nil, err
	}
	findings := lint.Syntax(syntax)
	if len(opt.Files) > 0 {
		refused, err := solver.Check(ctx, opt)
		if err != nil {
			return nil, err
		}
		findings = append(findings, lint.Refused(refused)...)
	}
	return findings, nil
}

// fixAll makes fixes until there are none: of those that overlap one is made
// at a time.
func (c *checker) fixAll(ctx context.Context, w io.Writer, findings []lint.Finding) ([]lint.Finding, error) {
	const most = 10
	fixed := make(map[string]int)
	defer func() {
		for _, path := range slices.Sorted(maps.Keys(fixed)) {
			fmt.Fprintf(w, "clayer: %s: %d fixed\n", path, fixed[path])
		}
	}()
	for range most {
		made := 0
		for _, path := range c.paths {
			own := slices.DeleteFunc(slices.Clone(findings), func(f lint.Finding) bool { return f.Pos.File != path })
			n, err := fixFile(path, own)
			if err != nil {
				return nil, err
			}
			if made += n; n > 0 {
				fixed[path] += n
			}
		}
		if made == 0 {
			break
		}
		var err error
		if findings, err = c.check(ctx); err != nil {
			return nil, err
		}
	}
	return findings, nil
}

// fixFile makes the fixes in one file: a new one that takes the old one's
// place, so that no kill leaves half of it.
func fixFile(path string, findings []lint.Finding) (int, error) {
	if _, ok := safefile.IsInput(path); ok {
		return 0, usagef("--fix changes a file, and %s is none", path)
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return 0, err
	}
	src, err := safefile.Read(path, frontend.MaxFile)
	if err != nil {
		return 0, err
	}
	out, made := lint.Apply(src, findings)
	if made == 0 {
		return 0, nil
	}
	if _, err := frontend.Parse(path, out); err != nil {
		return 0, fmt.Errorf("%s: the fixes would break it, and were not made: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".clayer-fix-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(out)
	err = errors.Join(err, temp.Chmod(info.Mode().Perm()), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	return made, err
}

func writeFindings(w io.Writer, findings []lint.Finding, format string) error {
	var err error
	switch format {
	case "json":
		err = lint.WriteJSON(w, findings)
	case "sarif":
		err = lint.WriteSARIF(w, findings, buildVersion())
	default:
		err = lint.WriteText(w, findings)
	}
	if err != nil {
		return err
	}
	has := func(l lint.Level) bool {
		return slices.ContainsFunc(findings, func(f lint.Finding) bool { return f.Level == l })
	}
	switch {
	case has(lint.Error):
		return usageError{errSaid}
	case has(lint.Warning):
		return errSaid
	}
	return nil
}

func writeRules(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range lint.Rules {
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Name, r.Level, r.Doc)
	}
	return t.Flush()
}
