package main

import (
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

func newVerify() *cobra.Command {
	var f solveFlags
	c := &cobra.Command{
		Use:   "verify",
		Short: "List applied files that have changed",
		Long: `verify compares every applied file, including its content, with what was applied.
It prints the files that have changed or are missing, and exits with 1 if there
are any. --json prints all files.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt, err := f.rootOptions(cmd)
			if err != nil {
				return err
			}
			files, err := solver.Verify(cmd.Context(), opt)
			if err != nil {
				return err
			}
			counts := make(map[drift.DriftState]int)
			for _, file := range files {
				counts[file.State]++
			}
			w := cmd.OutOrStdout()
			if f.json {
				err = writeJSON(w, struct {
					Files     []drift.FileState `json:"files"`
					AsApplied int               `json:"asApplied"`
					Changed   int               `json:"changed"`
					Missing   int               `json:"missing"`
				}{notNil(files), counts[drift.AsApplied], counts[drift.Changed], counts[drift.Missing]})
				if err != nil {
					return err
				}
			} else {
				for _, file := range files {
					if file.State != drift.AsApplied {
						fmt.Fprintf(w, "%-8s  /%s%s\n", file.State, printable.Line(file.Path), why(file))
					}
				}
				if !f.quiet {
					fmt.Fprintf(cmd.ErrOrStderr(), "clayer: %d as applied, %d changed, %d missing\n",
						counts[drift.AsApplied], counts[drift.Changed], counts[drift.Missing])
				}
			}
			if counts[drift.Changed]+counts[drift.Missing] > 0 {
				return errSaid
			}
			return nil
		},
	}
	f.registerRoot(c)
	return c
}

func newDiff() *cobra.Command {
	var f solveFlags
	var all bool
	c := &cobra.Command{
		Use:   "diff",
		Short: "List what else changed in the root since the last solve",
		Long: `diff prints, as a tree with sizes, what changed in the root since the last solve,
without the changes that clayer made. A new directory is one line; --all lists its
contents. If a file that no step made is deleted, its directory shows as changed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt, err := f.rootOptions(cmd)
			if err != nil {
				return err
			}
			files, err := solver.Diff(cmd.Context(), opt)
			if err != nil {
				return err
			}
			if f.json {
				return writeJSON(cmd.OutOrStdout(), notNil(files))
			}
			writeTree(cmd.OutOrStdout(), files, all)
			return nil
		},
	}
	f.registerRoot(c)
	c.Flags().BoolVar(&all, "all", false, "list the contents of new directories")
	return c
}

// writeTree writes files, sorted by path, as a tree. Those in a new folder are
// summed up in its line, unless all are wanted.
func writeTree(w io.Writer, files []drift.FileState, all bool) {
	var open []string // the folders whose line is written
	for i := 0; i < len(files); i++ {
		f := files[i]
		size, n := f.Size, 0
		last := i
		if f.Dir && f.State == drift.New {
			for last+1 < len(files) && strings.HasPrefix(files[last+1].Path, f.Path+"/") {
				last++
				size += files[last].Size
				if !files[last].Dir {
					n++
				}
			}
		}
		parts := strings.Split(f.Path, "/")
		depth := 0
		for depth < len(open) && depth < len(parts)-1 && open[depth] == parts[depth] {
			depth++
		}
		open = open[:depth]
		for ; depth < len(parts)-1; depth++ {
			fmt.Fprintf(w, "%s%s/\n", strings.Repeat("  ", depth), printable.Line(parts[depth]))
			open = append(open, parts[depth])
		}
		name, tail := path.Base(f.Path), ""
		if f.Dir {
			name += "/"
			open = append(open, path.Base(f.Path))
		}
		if f.State != drift.Missing && (!f.Dir || n > 0) {
			tail = "   " + sizes.Format(size)
		}
		if n > 0 && !all {
			tail += "   " + sizes.Count(n, "file")
		}
		fmt.Fprintf(w, "%s%s   %s%s%s\n", strings.Repeat("  ", depth), printable.Line(name), f.State, why(f), tail)
		if !all {
			i = last
		}
	}
}

func why(f drift.FileState) string {
	if len(f.What) == 0 {
		return ""
	}
	return "  (" + strings.Join(f.What, ", ") + ")"
}

func notNil(files []drift.FileState) []drift.FileState {
	if files == nil {
		return []drift.FileState{}
	}
	return files
}
