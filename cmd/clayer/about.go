package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/man"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages, one per command",
		Long: `man writes clayer.1, clayer-solve.1 and so on to the directory DIR, and creates it
if necessary. Packages install the pages in share/man/man1.`,
		Example: "  clayer man /usr/local/share/man/man1 && man clayer-solve",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return man.Write(args[0], buildVersion(), buildTime())
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

// version is set by the linker in a release: -ldflags "-X main.version=v1.2.3".
var version string

// buildVersion is the version of this binary.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func newVersion() *cobra.Command {
	var deps bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			info, ok := debug.ReadBuildInfo()
			fmt.Fprintf(w, "clayer %s %s/%s %s\n", buildVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			if deps && ok {
				for _, d := range info.Deps {
					fmt.Fprintf(w, "%s %s\n", d.Path, d.Version)
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&deps, "deps", false, "also print the modules that it is built from")
	return c
}
