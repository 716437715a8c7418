// Package about has the commands about the program itself: its version, its manual, its
// update and its removal.
package about

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/man"
)

// NewMan returns "clayer man".
func NewMan(version string) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages, one per command",
		Long: `man writes clayer.1, clayer-solve.1 and so on to the directory DIR, and creates it
if necessary. Packages install the pages in share/man/man1.`,
		Example: "  clayer man /usr/local/share/man/man1 && man clayer-solve",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return man.Write(args[0], version, BuildTime())
		},
	}
}

// BuildTime is when what this binary is built from was committed; the zero of
// Unix where that is not known.
func BuildTime() time.Time {
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

// WriteVersion writes the line that says what this binary is.
func WriteVersion(w io.Writer, version string) {
	fmt.Fprintf(w, "clayer %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// NewVersion returns "clayer version".
func NewVersion(version string) *cobra.Command {
	var deps bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			WriteVersion(w, version)
			if info, ok := debug.ReadBuildInfo(); deps && ok {
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
