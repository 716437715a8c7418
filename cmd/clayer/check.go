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
)

func newCheck() *cobra.Command {
	var format string
	var fix, rules, asJSON bool
	c := &cobra.Command{
		Use:   "check [NAME|FILE]...",
		Short: "Look for what goes wrong, costs time or space, or has no effect",
		Long: `check looks at Containerfiles, and at nothing else. It exits with 1 when it
warns, with 0 when it has only notes, with 2 when a file doesn't parse.

"# check=skip=RULE,RULE" at the top of a file turns rules off for the file, as
in BuildKit; above an instruction, for that one. Without arguments it looks at
Containerfile.`,
		Example: `  clayer check layers/Containerfile*
  clayer check --fix                          # make the changes that are safe
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
			paths, err := solver.Lookup(".", args, telling(cmd).warn)
			if err != nil {
				return err
			}
			findings, err := check(cmd.Context(), paths)
			if err != nil {
				return err
			}
			if fix {
				if findings, err = fixAll(cmd.Context(), cmd.ErrOrStderr(), paths, findings); err != nil {
					return err
				}
			}
			return writeFindings(cmd.OutOrStdout(), findings, format)
		},
	}
	c.Flags().StringVar(&format, "format", "text", "text, json or sarif")
	c.Flags().BoolVar(&asJSON, "json", false, "the same as --format=json")
	c.Flags().BoolVar(&fix, "fix", false, "change the files where that is safe, and tell what is left")
	c.Flags().BoolVar(&rules, "rules", false, "list the rules")
	return c
}

// check returns the findings in the files at paths, what doesn't parse among them.
func check(ctx context.Context, paths []string) ([]lint.Finding, error) {
	files, err := solver.Load(ctx, paths, nil)
	var problems frontend.Problems
	if err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	findings := append(lint.Problems(problems), lint.Check(files)...)
	// Siblings were loaded for what FROM brings.
	return slices.DeleteFunc(findings, func(f lint.Finding) bool { return !slices.Contains(paths, f.Pos.File) }), nil
}

// fixAll makes fixes until there are none: of those that overlap one is made
// at a time.
func fixAll(ctx context.Context, w io.Writer, paths []string, findings []lint.Finding) ([]lint.Finding, error) {
	const most = 10
	fixed := make(map[string]int)
	defer func() {
		for _, path := range slices.Sorted(maps.Keys(fixed)) {
			fmt.Fprintf(w, "clayer: %s: %d fixed\n", path, fixed[path])
		}
	}()
	for range most {
		made := 0
		for _, path := range paths {
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
		if findings, err = check(ctx, paths); err != nil {
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
