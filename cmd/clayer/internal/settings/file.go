package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/safefile"
)

// FileName is what files with settings are called.
const FileName = "clayer.toml"

// largest bounds a file, in bytes.
const largest = 1 << 20

// A File is a clayer.toml that was read.
type File struct {
	Path    string // as messages name it
	Dir     string // absolute: what its relative names start from
	Project bool   // a project's, not the user's

	entries map[string]entry
}

// An entry is a value of a file, as a flag takes it: several for a list.
type entry struct {
	values []string
	line   int
}

// Layers returns the layers that a project lists, and where it does; nil if it lists none.
func (f *File) Layers() (names []string, at frontend.Pos) {
	e, ok := f.lookup("layers")
	if !ok {
		return nil, at
	}
	return e.values, frontend.Pos{File: f.Path, Line: e.line}
}

// Value returns what the file sets a key to, a list one a line; "" for nothing.
func (f *File) Value(key string) string {
	e, _ := f.lookup(key)
	return strings.Join(e.values, "\n")
}

func (f *File) at(line int) string { return fmt.Sprintf("%s:%d", f.Path, line) }

// UserPath returns where the user's file is, if there is one; "" without a home directory.
func UserPath() string {
	base := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(base) { // the specification has others ignored
		home, err := os.UserHomeDir()
		if err != nil || home == "" {
			return ""
		}
		base = filepath.Join(home, ".config")
	}
	return filepath.Join(base, "clayer", FileName)
}

// ReadUser reads the user's file; nil if there is none. It may be a link: its directory is
// the user's own.
func ReadUser() (*File, error) {
	path := UserPath()
	if path == "" {
		return nil, nil
	}
	file, err := safefile.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		if _, err := os.Stat(path); err != nil {
			return nil, nil // in the home of another user, which su and setpriv leave in $HOME
		}
	}
	if err != nil {
		return nil, usage.Error{Err: err}
	}
	defer file.Close()
	if err := safefile.CheckFile(file); err != nil {
		return nil, errhint.With(usage.Error{Err: err}, "it must be yours, and nobody else may write to it")
	}
	data, err := safefile.ReadAll(file, largest)
	if err != nil {
		return nil, usage.Error{Err: err}
	}
	return parse(&File{Path: path, Dir: filepath.Dir(path)}, data)
}

// parse reads the text of a file. Its entries are as their flags take them.
func parse(f *File, data []byte) (*File, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors begin with it
	var values map[string]any
	if err := toml.Unmarshal(data, &values); err != nil {
		line := 1
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ = at.Position()
		}
		return nil, usage.Errorf("%s: %s", f.at(line), strings.TrimPrefix(err.Error(), "toml: "))
	}
	lines := linesOf(data)
	f.entries = make(map[string]entry)
	var problems []error
	for name, v := range values {
		line := lines[name]
		if err := f.check(name, line); err != nil {
			problems = append(problems, err)
			continue
		}
		list, want := f.read(name, v)
		if want != "" {
			problems = append(problems, usage.Errorf("%s: %s: want %s", f.at(line), name, want))
			continue
		}
		f.entries[name] = entry{list, line}
	}
	order.Stable(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if len(problems) > 0 {
		return nil, problems[0]
	}
	return f, nil
}

// linesOf returns the lines on which the names of a file stand that are in no table: all of
// them are unknown to a struct without fields.
func linesOf(data []byte) map[string]int {
	lines := make(map[string]int)
	d := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	var none struct{}
	var missing *toml.StrictMissingError
	if errors.As(d.Decode(&none), &missing) {
		for _, e := range missing.Errors {
			if name := e.Key()[0]; lines[name] == 0 {
				lines[name], _ = e.Position()
			}
		}
	}
	return lines
}

// check returns why a file cannot have a name.
func (f *File) check(name string, line int) error {
	k := keyOf(name)
	switch {
	case f.Project && (k != nil && !k.project || slices.Contains(reserved, name)):
		hint := "remove it"
		if k != nil {
			hint = fmt.Sprintf("set --%s or %s", k.flag, Variable(k.flag))
			if path := UserPath(); path != "" { // there is a home directory
				hint = fmt.Sprintf("put it into %s, or %s", displayed(path), hint)
			}
		}
		return errhint.With(usage.Errorf("%s: %s: a project's file cannot set it", f.at(line), name), hint)
	case k != nil && !f.Project && !k.user:
		return usage.Errorf("%s: %s: only a project's file can set it", f.at(line), name)
	case k != nil:
		return nil
	}
	err := usage.Errorf("%s: %s: unknown key", f.at(line), name)
	var known []string
	for _, k := range keys {
		if f.Project && k.project || !f.Project && k.user {
			known = append(known, k.name)
		}
		if k.flag == name || k.flag != "" && k.flag == strings.ReplaceAll(name, "_", "-") {
			return errhint.With(err, "did you mean "+k.name+"?")
		}
	}
	if near := frontend.Nearest(name, known); near != "" {
		return errhint.With(err, "did you mean "+near+"?")
	}
	return errhint.With(err, "keys are "+strings.Join(known, ", "))
}

// read returns a value as the flag takes it, or what it should be.
func (f *File) read(name string, v any) (list []string, want string) {
	switch name {
	case "layers", "stores", "salt", "invalidate-on", "build-arg", "secret", "ssh", "allow-secret", "allow-redirect":
		want = `a list of texts, such as ["` + map[string]string{"layers": "base", "stores": "dir:PATH"}[name] + `"]`
		if name != "layers" && name != "stores" {
			want = "a list of texts"
		}
		all, ok := v.([]any)
		if !ok || len(all) == 0 && name == "layers" {
			return nil, want
		}
		for _, x := range all {
			s, ok := x.(string)
			if !ok || s == "" || strings.Contains(s, "\n") {
				return nil, want
			}
			if name == "stores" {
				s = f.store(s)
			}
			if name == "build-arg" && f.Project && !strings.Contains(s, "=") {
				return nil, "NAME=VALUE: a project's file takes nothing from the session"
			}
			list = append(list, s)
		}
		return list, ""
	case "layer":
		return probes(v)
	case "jobs", "compression":
		n, ok := v.(int64)
		if !ok {
			return nil, "a number"
		}
		return []string{strconv.FormatInt(n, 10)}, ""
	case "offline", "no-cache", "no-sync", "share-mounts", "require-cache", "hermetic", "yes", "profile", "inherit-env":
		b, ok := v.(bool)
		if !ok {
			return nil, "true or false"
		}
		return []string{strconv.FormatBool(b)}, ""
	}
	s, ok := v.(string)
	if !ok {
		return nil, "a text"
	}
	if name == "cache-dir" {
		s = f.path(s)
	}
	return []string{s}, ""
}

// probes returns the tables [layer.NAME] as --probe takes them.
func probes(v any) (list []string, want string) {
	want = `tables [layer.NAME] with probe = "COMMAND"`
	layers, ok := v.(map[string]any)
	if !ok {
		return nil, want
	}
	for _, name := range slices.Sorted(maps.Keys(layers)) {
		table, ok := layers[name].(map[string]any)
		if !ok || len(table) > 1 {
			return nil, want
		}
		for key, v := range table {
			command, ok := v.(string)
			if key != "probe" || !ok || strings.TrimSpace(command) == "" || strings.ContainsAny(name, "=\n") {
				return nil, want
			}
			list = append(list, name+"="+command)
		}
	}
	return list, ""
}

// store returns a store with the whole path of its directory.
func (f *File) store(s string) string {
	if path, ok := strings.CutPrefix(s, "dir:"); ok && path != "" {
		return "dir:" + f.path(path)
	}
	return s
}

// path returns a path that stands in the file, relative to it, as an absolute one.
func (f *File) path(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(f.Dir, path)
}

// displayed returns a path of the user as people write it.
func displayed(path string) string {
	if home, err := os.UserHomeDir(); err == nil && home != "" {
		if rest, ok := strings.CutPrefix(path, home+"/"); ok {
			return "~/" + rest
		}
	}
	return path
}
