package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages, one for each command",
		Long: `man writes clayer.1, clayer-solve.1 and so on into the folder DIR, which is made
if missing: a package puts them into share/man/man1.`,
		Example: "  clayer man /usr/local/share/man/man1 && man clayer-solve",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := args[0]
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return usageError{err}
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the same binary writes the same pages
			built := buildTime()
			err := doc.GenManTree(root, &doc.GenManHeader{
				Section: "1", Date: &built, Source: "clayer " + buildVersion(), Manual: "clayer",
			}, dir)
			if err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			return nil
		},
	}
}

// buildTime is when what this binary is built from was committed; the zero of
// Unix where that is not known.
func buildTime() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
					return t.UTC()
				}
			}
		}
	}
	return time.Unix(0, 0).UTC()
}
