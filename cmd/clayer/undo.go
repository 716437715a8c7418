package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
)

func newUndo() *cobra.Command {
	var f solveFlags
	var to string
	c := &cobra.Command{
		Use:   "undo [--to LAYER]",
		Short: "Undo what was applied, and restore the root as it was before",
		Long: `undo removes what was applied, the last step first, and restores what it replaced
or deleted. Files that have changed since are preserved and listed; --force undoes
them too.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt, err := f.rootOptions(cmd)
			if err != nil {
				return err
			}
			res, err := solver.Undo(cmd.Context(), opt, to)
			var unknown *solver.UnknownLayerError
			if errors.As(err, &unknown) {
				return usagef("--to: %w", err)
			}
			if res == nil {
				return err
			}
			if f.json {
				if err := writeJSON(cmd.OutOrStdout(), res); err != nil {
					return err
				}
			}
			if !f.quiet && f.progress != "json" {
				fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %s\n", undoText(res))
			}
			return err
		},
	}
	f.registerRoot(c)
	c.Flags().StringVar(&to, "to", "", "undo what was applied after `LAYER`, but not LAYER itself")
	c.Flags().BoolVar(&f.force, "force", false, "also undo files that have changed since")
	c.Flags().BoolVar(&f.noWait, "no-wait", false, "fail immediately if another command is changing this root")
	return c
}

func undoText(res *solver.UndoResult) string {
	text := "nothing to undo"
	if res.Steps > 0 || res.Files > 0 {
		text = fmt.Sprintf("%s undone, %s", sizes.Count(res.Steps, "step"), sizes.Count(res.Files, "change"))
	}
	if n := len(res.Kept); n > 0 {
		text += fmt.Sprintf(", %s kept", sizes.Count(n, "file"))
	}
	return text
}
