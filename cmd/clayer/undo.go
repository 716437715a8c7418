package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver"
)

func newUndo() *cobra.Command {
	var f solveFlags
	var to string
	c := &cobra.Command{
		Use:   "undo [--to LAYER]",
		Short: "Give the root back as it was before",
		Long: `undo takes back what was applied, the last step first, and brings back what
it had replaced or deleted. Files that were changed since are kept as they are,
and listed; --force takes them too.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.rootRequest(cmd)
			if err != nil {
				return err
			}
			res, err := solver.Undo(cmd.Context(), r, to)
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
	c.Flags().StringVar(&to, "to", "", "undo what is behind this layer, which stays")
	c.Flags().BoolVar(&f.force, "force", false, "undo also what was changed since")
	c.Flags().BoolVar(&f.noWait, "no-wait", false, "fail at once while another command changes this root")
	return c
}

func undoText(res *solver.UndoResult) string {
	text := "nothing to undo"
	if res.Steps > 0 || res.Files > 0 {
		text = fmt.Sprintf("%s undone, %s", dag.Count(res.Steps, "step"), dag.Count(res.Files, "change"))
	}
	if n := len(res.Kept); n > 0 {
		text += fmt.Sprintf(", %s kept", dag.Count(n, "file"))
	}
	return text
}
