// Package settings gives flags that are not on the command line their values: from
// CLAYER_.. variables, from the clayer.toml of the project, or from that of the user. It
// knows where each comes from.
package settings

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
)

// A Source is what a value comes from. A later one has precedence.
type Source string

// The sources of values.
const (
	Default     Source = "default"
	User        Source = "user"    // the user's clayer.toml
	Project     Source = "project" // the project's
	Environment Source = "variable"
	Flag        Source = "flag"
)

// An Origin is where a value comes from.
type Origin struct {
	Source Source `json:"source"`
	Name   string `json:"name,omitempty"` // of the variable or flag
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
}

// String returns the place as people find it.
func (o Origin) String() string {
	switch {
	case o.File != "":
		return fmt.Sprintf("%s:%d", o.File, o.Line)
	case o.Name != "":
		return o.Name
	}
	return string(o.Source)
}

// annotation is where a flag holds its origin.
const annotation = "clayer origin"

// OriginOf returns where the value of a flag comes from.
func OriginOf(f *pflag.Flag) Origin {
	a := f.Annotations[annotation]
	switch {
	case len(a) == 4:
		line, _ := strconv.Atoi(a[3])
		return Origin{Source(a[0]), a[1], a[2], line}
	case f.Changed:
		return Origin{Source: Flag, Name: "--" + f.Name}
	}
	return Origin{Source: Default}
}

// set gives a flag its values.
func set(flags *pflag.FlagSet, f *pflag.Flag, values []string, o Origin) error {
	for _, v := range values {
		if err := flags.Set(f.Name, v); err != nil {
			return usage.Errorf("%s: %w", o, err)
		}
	}
	f.Changed = true // an empty list is a value too
	if f.Annotations == nil {
		f.Annotations = make(map[string][]string)
	}
	f.Annotations[annotation] = []string{string(o.Source), o.Name, o.File, strconv.Itoa(o.Line)}
	return nil
}

// Variable returns the name of the variable that sets a flag.
func Variable(flag string) string {
	return "CLAYER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// FromVariables sets the flags that were not given from CLAYER_.. variables. A flag that
// may be given several times takes its values one a line.
func FromVariables(flags *pflag.FlagSet) error {
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		name := Variable(f.Name)
		value, ok := os.LookupEnv(name)
		if f.Changed || !ok || value == "" || err != nil || f.Name == "version" { // CLAYER_VERSION is what install.sh installs
			return
		}
		values := []string{value}
		if _, many := f.Value.(pflag.SliceValue); many {
			values = strings.Split(strings.TrimRight(value, "\n"), "\n")
		}
		err = set(flags, f, values, Origin{Source: Environment, Name: name})
	})
	return err
}

// Files are the files that hold for a command, each nil if there is none.
type Files struct{ Project, User *File }

// Apply sets the flags that neither the command line nor a variable has set. What stays
// names keys that are left alone.
func (fs Files) Apply(flags *pflag.FlagSet, stays func(key string) bool) error {
	for _, file := range []*File{fs.Project, fs.User} {
		if file == nil {
			continue
		}
		source := User
		if file.Project {
			source = Project
		}
		for _, k := range keys {
			e, ok := file.entries[k.name]
			f := flags.Lookup(k.flag)
			if !ok || f == nil || f.Changed || stays(k.name) || isGiven(flags, k.unless) {
				continue
			}
			if err := set(flags, f, e.values, Origin{Source: source, File: file.Path, Line: e.line}); err != nil {
				return err
			}
		}
	}
	return nil
}

// isGiven reports whether a flag is set to something else than its default.
func isGiven(flags *pflag.FlagSet, name string) bool {
	f := flags.Lookup(name)
	return f != nil && f.Value.String() != f.DefValue
}

type filesKey struct{}

// WithFiles returns a context that FilesOf finds the files in.
func WithFiles(ctx context.Context, files Files) context.Context {
	return context.WithValue(ctx, filesKey{}, files)
}

// FilesOf returns the files that hold for a command.
func FilesOf(ctx context.Context) Files {
	files, _ := ctx.Value(filesKey{}).(Files)
	return files
}

// A Listing is all settings of a command.
type Listing struct {
	Project  string    `json:"project,omitempty"` // the project's file; "" if there is none
	User     string    `json:"user,omitempty"`    // the user's; "" if there is none
	Settings []Setting `json:"settings"`
}

// NewListing returns the settings of a command that was given its flags.
func NewListing(c *cobra.Command) *Listing {
	files := FilesOf(c.Context())
	l := &Listing{Settings: files.list(c.Flags())}
	if files.Project != nil {
		l.Project = filepath.Join(files.Project.Dir, FileName)
	}
	if files.User != nil {
		l.User = files.User.Path
	}
	return l
}

// IsKey reports whether a file can set a flag.
func IsKey(flag string) bool {
	return slices.ContainsFunc(keys, func(k key) bool { return k.flag == flag })
}

// A Setting is the value of a key.
type Setting struct {
	Key    string   `json:"key"`
	Values []string `json:"values"`
	Origin
}

// secretKeys are those whose values are not shown.
var secretKeys = map[string]bool{"token": true}

// list returns all keys with the values that a command has.
func (fs Files) list(flags *pflag.FlagSet) []Setting {
	var all []Setting
	for _, k := range keys {
		s := Setting{Key: k.name, Values: []string{}, Origin: Origin{Source: Default}}
		if k.flag == "" {
			if e, ok := fs.Project.lookup(k.name); ok {
				s.Values, s.Origin = e.values, Origin{Source: Project, File: fs.Project.Path, Line: e.line}
			}
			all = append(all, s)
			continue
		}
		f := flags.Lookup(k.flag)
		if f == nil {
			continue
		}
		s.Origin = OriginOf(f)
		if many, ok := f.Value.(pflag.SliceValue); ok {
			s.Values = append(s.Values, many.GetSlice()...)
		} else if v := f.Value.String(); v != "" {
			s.Values = append(s.Values, v)
		}
		for i, v := range s.Values {
			s.Values[i] = transfer.RedactText(v)
		}
		if secretKeys[k.name] && len(s.Values) > 0 {
			s.Values = []string{"(not shown)"}
		}
		all = append(all, s)
	}
	return all
}

func (f *File) lookup(name string) (e entry, ok bool) {
	if f != nil {
		e, ok = f.entries[name]
	}
	return e, ok
}
