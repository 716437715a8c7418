package solver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/clayer/clayer/frontend"
)

// compositionFile lists the layers of a project where none are named.
const compositionFile = ".claude/container-layers.json"

// Lookup turns what a user named into paths of Containerfiles. An argument is
// a path or a layer's name; a name is looked up in dir/layers and in dir, as
// Containerfile.NAME (base: Containerfile). Without arguments the layers are
// those of dir/.claude/container-layers.json, {"layers": ["base", "mojo"]}, and
// without that file, dir/Containerfile.
func Lookup(dir string, args []string) ([]string, error) {
	if len(args) == 0 {
		names, err := composition(filepath.Join(dir, compositionFile))
		if errors.Is(err, fs.ErrNotExist) {
			return []string{filepath.Join(dir, "Containerfile")}, nil
		}
		if err != nil {
			return nil, err
		}
		args = names
	}
	var paths []string
	var problems frontend.Problems
	for _, arg := range args {
		path, tried := lookup(dir, arg)
		if path == "" {
			problems = append(problems, &frontend.Problem{
				Pos:     frontend.Pos{File: arg},
				Message: "no such file, and no layer of that name",
				Hint:    fmt.Sprintf("looked for %s and %s", tried[0], tried[1]),
			})
			continue
		}
		paths = append(paths, path)
	}
	return paths, problems.Err()
}

func lookup(dir, arg string) (path string, tried []string) {
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

// composition reads the layer names of a project. "extra" holds those that it
// wants beside the ones of "layers".
func composition(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var c struct{ Layers, Extra []string }
	bad := func(message string) error {
		return frontend.Problems{{Pos: frontend.Pos{File: path}, Message: message, Hint: `it should hold {"layers": ["base", ...]}`}}
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, bad(err.Error())
	}
	names := append(c.Layers, c.Extra...)
	if len(names) == 0 {
		return nil, bad("no layers are listed")
	}
	return names, nil
}
