package layers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/safefile"
)

// compositionFile lists the layers of a project where none are named, and
// localFile, on top of it, those that one of its users adds: it is not
// meant to be committed.
const (
	compositionFile = ".claude/container-layers.json"
	localFile       = ".claude/container-layers.local.json"
)

// Lookup turns what a user named into paths of Containerfiles. An argument is
// a path or a layer's name; a name is looked up in dir/layers and in dir, as
// Containerfile.NAME (base: Containerfile). Without arguments the layers are
// those of dir/.claude/container-layers.json, {"layers": ["base", "mojo"]}, and
// the "extra" ones of container-layers.local.json beside it. Where nothing lists
// the layers they are dir/Containerfile, or layers/Containerfile below what is
// extra.
//
// A listed layer without a file is skipped with a warning, as are unknown keys: a
// layer that was removed must not keep a session from starting. A name in args
// must exist.
func Lookup(dir string, args []string, warn func(text string)) ([]string, error) {
	names := make([]layerName, len(args))
	for i, arg := range args {
		names[i] = layerName{name: arg}
	}
	if len(args) == 0 {
		var err error
		if names, err = composition(dir, warn); err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return []string{Default(dir)}, nil
		}
	}
	return find(dir, names, warn)
}

// Listed is Lookup for the layers that a file lists, where at is.
func Listed(dir string, list []string, at frontend.Pos, warn func(text string)) ([]string, error) {
	var names []layerName
	for _, n := range list {
		names = append(names, layerName{n, at})
	}
	return find(dir, names, warn)
}

// find returns the files of layers. One that is listed in a file is not required, as long
// as there are others.
func find(dir string, names []layerName, warn func(text string)) ([]string, error) {
	var paths []string
	var problems, missing frontend.Problems
	for _, name := range names {
		path, tried := lookup(dir, name.name)
		if path == "" {
			p := &frontend.Problem{
				Pos:     frontend.Pos{File: name.name},
				Message: "no such file, and no layer of that name",
				Hint:    fmt.Sprintf("looked for %s and %s", tried[0], tried[1]),
			}
			if name.at.File != "" {
				p.Pos, p.Message = name.at, fmt.Sprintf("%q is no file, and no layer of that name", name.name)
				missing = append(missing, p)
			} else {
				problems = append(problems, p)
			}
			continue
		}
		paths = append(paths, path)
	}
	if len(paths) == 0 {
		return nil, append(problems, missing...).Err()
	}
	for _, p := range missing {
		warn(fmt.Sprintf("%s: %s: it is left out (%s)", p.Pos, p.Message, p.Hint))
	}
	return paths, problems.Err()
}

// Default returns the file that is read in a directory where none is named: its
// Containerfile, and where there is none, its Dockerfile.
func Default(dir string) string {
	path := filepath.Join(dir, "Containerfile")
	if other := filepath.Join(dir, "Dockerfile"); !isThere(path) && isRegular(other) {
		return other
	}
	return path
}

// Stated is Default; say is called with what is not as its name says.
func Stated(dir string, say func(text string)) string {
	path := Default(dir)
	if filepath.Base(path) == "Dockerfile" {
		say("there is no Containerfile here: reading " + path)
	}
	return path
}

// IsContext reports whether an argument is a directory, and the name of no layer.
func IsContext(arg string) bool {
	path, _ := lookup(".", arg)
	info, err := os.Stat(arg)
	return path == "" && err == nil && info.IsDir() || filepath.IsAbs(arg) && err == nil && info.IsDir()
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func lookup(dir, arg string) (path string, tried []string) {
	if _, ok := safefile.IsInput(arg); ok {
		return arg, nil
	}
	if filepath.IsAbs(arg) {
		if _, err := os.Stat(arg); err == nil {
			return arg, nil
		}
	}
	// Names first: a file that happens to be called like a layer does not hide it.
	for _, d := range []string{filepath.Join(dir, "layers"), dir} {
		if p, ok := layerFile(d, arg); ok && isRegular(p) {
			return p, nil
		}
		tried = append(tried, filepath.Join(d, layerFileName(arg)))
	}
	if p := filepath.Join(dir, arg); isRegular(p) {
		return p, nil
	}
	return "", tried
}

func isRegular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// A layerName is what a layer is called, and the place that lists it, if one does.
type layerName struct {
	name string
	at   frontend.Pos
}

// composition returns the layers that a project lists, each once.
func composition(dir string, warn func(text string)) ([]layerName, error) {
	var names []layerName
	for _, file := range []string{compositionFile, localFile} {
		path := filepath.Join(dir, file)
		data, err := safefile.Read(path, maxText)
		if errors.Is(err, fs.ErrNotExist) {
			if _, tried := lookup(dir, "base"); file == compositionFile && tried == nil && isRegular(filepath.Join(dir, localFile)) {
				names = append(names, layerName{name: "base"})
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		list, err := listed(path, data, warn)
		if err != nil {
			return nil, err
		}
		for _, n := range list {
			if !slices.ContainsFunc(names, func(have layerName) bool { return have.name == n }) {
				names = append(names, layerName{n, frontend.Pos{File: path}})
			}
		}
	}
	return names, nil
}

// listed returns the names in a file that lists layers. Its keys that begin with
// "_" are comments.
func listed(path string, data []byte, warn func(text string)) ([]string, error) {
	bad := func(line int, format string, args ...any) error {
		return frontend.Problems{{
			Pos: frontend.Pos{File: path, Line: line}, Message: fmt.Sprintf(format, args...),
			Hint: `it should hold {"layers": ["base", ...]} or {"extra": [...]}`,
		}}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors begin with it
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, bad(1+bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n")), "it is no JSON: %v", err)
		}
		return nil, bad(0, "it is no JSON object")
	}
	var lists struct{ layers, extra []string }
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var list *[]string
		switch name {
		case "layers":
			list = &lists.layers
		case "extra":
			list = &lists.extra
		case "$schema":
			continue
		default:
			if !strings.HasPrefix(name, "_") {
				warn(fmt.Sprintf("%s: %q is neither layers nor extra: it is ignored", path, name))
			}
			continue
		}
		if err := json.Unmarshal(members[name], list); err != nil || slices.Contains(*list, "") {
			return nil, bad(0, "%q is no list of names", name)
		}
	}
	names := append(lists.layers, lists.extra...)
	if len(names) == 0 {
		return nil, bad(0, "no layers are listed")
	}
	return names, nil
}
