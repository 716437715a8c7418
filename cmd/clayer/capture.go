package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/parse"
	"github.com/clayer/clayer/cmd/clayer/internal/shim"
	"github.com/clayer/clayer/cmd/clayer/internal/ui"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/safefile"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/capture"
	"github.com/clayer/clayer/solver/layers"
)

func newCapture() *cobra.Command {
	var f appliedFlags
	var o capture.Options
	var file, since string
	var write bool
	c := &cobra.Command{
		Use:   "capture [-f FILE] [--write]",
		Short: "Propose lines for packages that were installed by hand",
		Long: `capture asks the package managers on PATH (dpkg, each Python, npm, cargo, gem)
what was installed since the last solve, or since the machine started. It prints,
as a diff, lines that would install the same: a RUN for each package that was
requested (not for its dependencies), and a SNAPSHOT for new files that belong
to no package.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt, err := f.options(cmd)
			if err != nil {
				return err
			}
			if o.Since, err = parse.Since(since, time.Now()); err != nil {
				return err
			}
			if file == "" {
				file = stated(cmd)
			}
			// Now: the search takes long.
			if _, err := safefile.Read(file, frontend.MaxFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			o.Skip = notEnvironment(file)
			found, err := solver.Installed(cmd.Context(), opt, o)
			if errors.Is(err, solver.ErrSinceWhen) {
				err = errhint.With(err, "--since gives the time")
			}
			if err != nil {
				return err
			}
			for _, p := range found.Problems {
				opt.Report.Warn(p)
			}
			return proposeCapture(cmd, &f, found, file, write)
		},
	}
	f.register(c)
	c.Flags().StringVarP(&file, "file", "f", "", "propose lines for this Containerfile `FILE` (default: Containerfile)")
	c.Flags().StringVar(&since, "since", "", "look at what was installed since `TIME`: 2h, or 2006-01-02T15:04:05Z (default: the last solve, or the machine's start)")
	c.Flags().BoolVar(&o.Pin, "pin", false, "pin the installed versions")
	c.Flags().BoolVar(&write, "write", false, "write the lines to the file")
	return c
}

func proposeCapture(cmd *cobra.Command, f *appliedFlags, found *capture.Found, file string, write bool) error {
	var before, after []byte
	propose := func(src []byte) (out []byte, err error) {
		before = src
		after, err = found.Propose(src)
		return after, err
	}
	var err error
	if write {
		_, err = edit.Update(cmd.Context(), file, propose)
	} else if before, err = safefile.Read(file, frontend.MaxFile); err == nil || os.IsNotExist(err) {
		_, err = propose(before)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	text := diff.Diff(file, before, file, after)
	if f.json {
		return ui.WriteJSON(cmd.OutOrStdout(), struct {
			File    string `json:"file"`
			Diff    string `json:"diff"`
			Written bool   `json:"written"`
		}{file, string(text), write && len(text) > 0})
	}
	if _, err := ui.Data(cmd.OutOrStdout()).Write(text); err != nil {
		return err
	}
	switch {
	case len(text) == 0:
		f.note(cmd, "nothing to capture")
	case write:
		f.note(cmd, "wrote %s", file)
	case !f.quiet:
		fmt.Fprintln(cmd.ErrOrStderr(), "hint: --write writes it")
	}
	return nil
}

// stated returns the file that a solve here reads, for lines to be written to.
func stated(cmd *cobra.Command) string {
	return layers.Stated(".", func(text string) { fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s\n", text) })
}

// notEnvironment lists directories that are the session's own: the project's,
// temporary ones, and clayer's.
func notEnvironment(file string) []string {
	list := []string{os.TempDir()}
	if abs, err := filepath.Abs(file); err == nil {
		list = append(list, filepath.Dir(abs))
	}
	if dir, err := os.Getwd(); err == nil {
		list = append(list, dir)
	}
	if exe, err := shim.Program(); err == nil {
		list = append(list, exe)
	}
	if dir, err := shim.DefaultDir(); err == nil {
		list = append(list, filepath.Dir(dir))
	}
	return list
}
