package solver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/clayer/clayer/frontend"
)

// compositionFile lists the layers of a project where none are named, and
// localFile, on top of it, those that one of its users wants beside: it is not
// meant to be committed.
const (
	compositionFile = ".claude/container-layers.json"
	localFile       = ".claude/container-layers.local.json"
)

// Lookup turns what a user named into paths of Containerfiles. An argument is
// a path or a layer's name; a name is looked up in dir/layers and in dir, as
// Containerfile.NAME (base: Containerfile). Without arguments the layers are
// those of dir/.claude/container-layers.json, {"layers": ["base", "mojo"]}, and
// the "extra" ones of container-layers.local.json beside it; without both files,
// dir/Containerfile.
func Lookup(dir string, args []string) ([]string, error) {
	if len(args) == 0 {
		names, err := composition(dir)
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

// composition returns the layer names of a project, each once. The error is
// fs.ErrNotExist if it has none.
func composition(dir string) ([]string, error) {
	var names []string
	missing := 0
	for _, name := range []string{compositionFile, localFile} {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			return nil, err
		}
		bad := func(message string) error {
			return frontend.Problems{{Pos: frontend.Pos{File: path}, Message: message, Hint: `it should hold {"layers": ["base", ...]} or {"extra": [...]}`}}
		}
		var c struct{ Layers, Extra []string }
		if err := json.Unmarshal(data, &c); err != nil {
			return nil, bad(err.Error())
		}
		if len(c.Layers)+len(c.Extra) == 0 {
			return nil, bad("no layers are listed")
		}
		for _, n := range append(c.Layers, c.Extra...) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	if missing == 2 {
		return nil, fs.ErrNotExist
	}
	return names, nil
}
