// Package buildcontext has the flags that say which Containerfiles are read, and what COPY
// reads from.
package buildcontext

import (
	"github.com/spf13/cobra"

	"github.com/clayer/clayer/cmd/clayer/internal/parse"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/layers"
)

// Flags are those of commands that read Containerfiles.
type Flags struct {
	Files      []string // -f
	Dir        string   // --context
	Named      []string // --build-context
	StageBases []string

	Notes []string // of looking up the files
}

// Register is for all of these commands.
func (f *Flags) Register(c *cobra.Command) {
	c.Flags().StringVar(&f.Dir, "context", "", "COPY from the directory `DIR` (default: that of the Containerfile)")
	c.Flags().StringArrayVar(&f.Named, "build-context", nil, "have COPY --from=NAME copy from a directory or an image, by `NAME=DIR|docker-image://IMAGE|oci-layout:DIR` (repeatable)")
	c.Flags().StringArrayVar(&f.StageBases, "stage-base", nil, "build a stage on the files of an image instead of this machine, by `STAGE=IMAGE` (repeatable)")
}

// RegisterFiles is for those that take files by -f. Completion offers files by default.
func (f *Flags) RegisterFiles(c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.Files, "file", "f", nil, "read the Containerfile `FILE`, or - for stdin; several are composed in order (default: Containerfile)")
}

// FilesOrDefault returns the files of -f, or else the one of the working directory.
func (f *Flags) FilesOrDefault() []string {
	if len(f.Files) == 0 {
		return []string{f.DefaultIn(".")}
	}
	return f.Files
}

// DefaultIn returns the file of a directory where -f names none.
func (f *Flags) DefaultIn(dir string) string {
	return layers.Stated(dir, func(text string) { f.Notes = append(f.Notes, text) })
}

// Take takes the argument that is a directory to copy from, as docker build does: the file
// is then the one in it, unless -f or another argument names one.
func (f *Flags) Take(args []string) (rest []string, err error) {
	var dirs []string
	for _, arg := range args {
		if layers.IsContext(arg) {
			dirs = append(dirs, arg)
		} else {
			rest = append(rest, arg)
		}
	}
	switch {
	case len(dirs) > 1:
		return nil, usage.Errorf("%s and %s are directories: COPY reads from one", dirs[0], dirs[1])
	case len(dirs) == 1 && f.Dir != "":
		return nil, usage.Errorf("%s is a directory to copy from, and so is --context: give one of them", dirs[0])
	case len(dirs) == 1:
		f.Dir = dirs[0]
		if len(rest)+len(f.Files) == 0 {
			f.Files = []string{f.DefaultIn(dirs[0])}
		}
	}
	return rest, nil
}

// Options returns how the files are read.
func (f *Flags) Options(args frontend.Args) (layers.Options, error) {
	var err error
	args.Contexts, err = parse.Contexts(f.Dir, f.Named)
	return layers.Options{Args: args, Context: f.Dir}, err
}
