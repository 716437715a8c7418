package settings

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/errhint"
)

// filesInArgs and givenStores mark commands.
const (
	filesInArgs = "clayer files in args"
	givenStores = "clayer given stores"
)

// TakesFiles notes that the arguments of a command may be Containerfiles: the project is
// theirs.
func TakesFiles(c *cobra.Command) { mark(c, filesInArgs) }

// WorksOnGivenStores notes that a command works on the stores of the command line and of
// variables, else on the local one: no file sends it elsewhere, unless it reads
// Containerfiles.
func WorksOnGivenStores(c *cobra.Command) { mark(c, givenStores) }

func mark(c *cobra.Command, name string) {
	if c.Annotations == nil {
		c.Annotations = make(map[string]string)
	}
	c.Annotations[name] = "true"
}

// Load sets the flags of a command from variables, and from files if it has stores. The
// command's context has the files then.
func Load(c *cobra.Command, args []string) error {
	if err := FromVariables(c.Flags()); err != nil {
		return err
	}
	if c.Flags().Lookup("cache-dir") == nil {
		return nil
	}
	paths := containerfiles(c, args)
	files, err := find(paths, func(text string) { fmt.Fprintln(c.ErrOrStderr(), "clayer: warning:", text) })
	if err != nil {
		return err
	}
	c.SetContext(WithFiles(c.Context(), files))
	stays := func(string) bool { return false }
	if c.Annotations[givenStores] != "" && len(paths) == 0 {
		stays = func(key string) bool { return key == "stores" || key == "repo" }
	}
	return files.Apply(c.Flags(), stays)
}

// containerfiles returns those that a command line names, as far as they are paths.
func containerfiles(c *cobra.Command, args []string) (paths []string) {
	if f := c.Flags().Lookup("file"); f != nil && f.Changed {
		if many, ok := f.Value.(pflag.SliceValue); ok {
			paths = many.GetSlice()
		}
	}
	if c.Annotations[filesInArgs] != "" {
		for _, a := range args {
			info, err := os.Stat(a)
			switch isDir := err == nil && info.IsDir(); {
			case isDir && len(paths) == 0:
				paths = append(paths, filepath.Join(a, "Containerfile"))
			case !isDir && strings.ContainsRune(a, filepath.Separator): // else it is looked up here
				paths = append(paths, a)
			}
		}
	}
	return paths
}

// ForFile returns the files that hold for a Containerfile.
func ForFile(path string) (Files, error) { return find([]string{path}, func(string) {}) }

// find returns the files that hold for Containerfiles; for none, in the working directory.
func find(paths []string, warn func(text string)) (files Files, err error) {
	if files.User, err = ReadUser(); err != nil {
		return files, err
	}
	if len(paths) == 0 {
		paths = []string{"Containerfile"}
	}
	for i, path := range paths {
		f, err := FindProject(filepath.Dir(path))
		if err != nil {
			return files, err
		}
		if i > 0 && (f == nil) != (files.Project == nil) || f != nil && files.Project != nil && f.Dir != files.Project.Dir {
			at := cmp.Or(f, files.Project).Path
			warn(fmt.Sprintf("%s is not used: %s and %s are not of one project", at, paths[0], path))
			files.Project = nil
			return files, nil
		}
		files.Project = f
	}
	return files, nil
}

// Explain adds to a usage error about flags that were not on the command line where their
// values come from.
func Explain(c *cobra.Command, err error) error {
	var fault usage.Error
	if c == nil || !errors.As(err, &fault) {
		return err
	}
	words := strings.FieldsFunc(err.Error(), func(r rune) bool { return strings.ContainsRune(" =:,\n\"", r) })
	c.Flags().VisitAll(func(f *pflag.Flag) {
		o := OriginOf(f)
		if o.Source != Project && o.Source != User && o.Source != Environment {
			return
		}
		for _, w := range words {
			if w == "--"+f.Name {
				err = errhint.With(err, fmt.Sprintf("--%s is set by %s", f.Name, o))
				return
			}
		}
	})
	return err
}

// ProjectSets returns where the project's file sets a flag; "" if it does not.
func ProjectSets(c *cobra.Command, flag string) string {
	if f := c.Flags().Lookup(flag); f != nil {
		if o := OriginOf(f); o.Source == Project {
			return o.String()
		}
	}
	return ""
}
