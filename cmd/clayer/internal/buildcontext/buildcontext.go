// Package buildcontext has the flags that say which Containerfiles are read, and what COPY
// reads from.
package buildcontext

import (
	"slices"
	"strings"

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

// Unused says which contexts of --build-context nothing in the files reads from.
func (f *Flags) Unused(files []*frontend.File) (warnings []string) {
	if len(f.Named) == 0 {
		return nil
	}
	used := make(map[string]bool) // by name
	seen := make(map[*frontend.File]bool)
	var based []string
	var visit func(files []*frontend.File)
	visit = func(files []*frontend.File) {
		for _, file := range files {
			if seen[file] { // many files may copy from one
				continue
			}
			seen[file] = true
			for _, s := range append(slices.Clip(file.Stages()), file) {
				for _, in := range s.Instructions {
					if in, ok := in.(*frontend.From); ok {
						based = append(based, in.Image)
					}
				}
				visit(s.Below)
			}
			file.Origins(func(_ *frontend.Meta, o *frontend.Origin) {
				for name, c := range file.Args().Contexts {
					if o.Context == c.Dir && o.Image == c.Image && frontend.SameName(name, o.From) {
						used[name] = true
					}
				}
				if o.Stage != nil {
					visit(o.Stage.Below) // a layer that is copied from
				}
			})
		}
	}
	visit(files)
	for _, v := range f.Named {
		name, _, _ := strings.Cut(v, "=")
		if len(files) == 0 || used[name] {
			continue
		}
		text := "--build-context " + v + ": no COPY --from and no RUN --mount reads from " + name
		if slices.ContainsFunc(based, func(image string) bool { return frontend.SameName(name, image) }) {
			text += "; that of a FROM stays as it is: --stage-base STAGE=IMAGE has a stage built on an image"
		}
		warnings = append(warnings, text)
	}
	return warnings
}

// Hint returns the flags that have a command read the file at path as it was read among paths.
func (f *Flags) Hint(path string, paths []string) (flags []string) {
	add := func(name string, values ...string) {
		for _, v := range values {
			flags = append(flags, "--"+name+"="+v)
		}
	}
	add("build-context", f.Named...)
	if slices.Contains(paths, path) { // else a FROM names it: it reads from its own directory
		if f.Dir != "" {
			add("context", f.Dir)
		}
		add("stage-base", f.StageBases...)
	}
	return flags
}
