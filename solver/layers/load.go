// Package layers finds the Containerfiles of a composition: by name, beside each
// other, and in the releases of container-layer, which clayer comes from.
package layers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/patternmatcher/ignorefile"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/layername"
	"github.com/clayer/clayer/internal/safefile"
)

// Options say how files are read.
type Options struct {
	Names map[string]string // of layers, by path, instead of those that their files have
	Args  frontend.Args     // Platform is this machine's where it is ""

	// Context is the directory that COPYs of the files at paths read from, and not those of
	// siblings; "" for that of each file.
	Context string

	// Read is frontend.Load where it is nil.
	Read func(ctx context.Context, path string, args frontend.Args) (*frontend.File, error)

	below int      // how many stages build on each other
	above []string // the absolute paths of the files that copy from what is loaded
}

// Load reads the Containerfiles at paths and, beside them, the sibling layers
// that they name by FROM. The error is frontend.Problems: all that is wrong in all files.
// The error is that of ctx where the wait for a pipe was given up.
func Load(ctx context.Context, paths []string, opt Options) ([]*frontend.File, error) {
	var files []*frontend.File
	var problems frontend.Problems
	if opt.Read == nil {
		opt.Read = frontend.Load
	}
	opt.Args.Platform = cmp.Or(opt.Args.Platform, runtime.GOOS+"/"+runtime.GOARCH)
	loaded := make(map[string]bool) // by absolute path
	load := func(path string) error {
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		loaded[abs] = true
		f, err := opt.Read(ctx, path, opt.Args)
		var ps frontend.Problems
		if errors.As(err, &ps) {
			problems = append(problems, ps...)
		} else if err != nil {
			return err
		}
		if f == nil {
			return nil
		}
		if name, ok := opt.Names[path]; ok {
			f.Name = name
		}
		files = append(files, f)
		return nil
	}
	for _, path := range paths {
		if err := load(path); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		f.SetContext(opt.Context)
	}

	// Siblings are looked for until no file names a new one. files grows.
	for i := 0; i < len(files); i++ {
		from := dag.BuildsOn(files[i])
		if from == nil || hasLayer(files, from.Image) {
			continue
		}
		path, ok := layerFile(files[i].Dir, from.Image)
		if abs, err := filepath.Abs(path); !ok || err != nil || loaded[abs] {
			continue // an image: no effect
		}
		if err := load(path); err != nil {
			return nil, err
		}
	}
	ps, err := loadBelow(ctx, files, opt)
	if err != nil {
		return nil, err
	}
	problems = append(problems, ps...)
	for _, f := range files[:len(files):len(files)] {
		if ps, err = loadCopied(ctx, f, files, opt); err != nil {
			return nil, err
		}
		problems = append(problems, ps...)
	}
	if len(problems) == 0 {
		return files, nil
	}
	return files, problems
}

// maxBelow bounds how far stages of siblings build on siblings: they may make a cycle.
const maxBelow = 10

// loadBelow loads the siblings that stages build on and that are not composed.
func loadBelow(ctx context.Context, files []*frontend.File, opt Options) (problems frontend.Problems, err error) {
	if opt.below == maxBelow {
		return nil, nil
	}
	for _, f := range files {
		for _, s := range f.Stages() {
			from := dag.BuildsOn(s)
			if s.Uses == 0 || from == nil || hasLayer(files, from.Image) {
				continue
			}
			path, ok := layerFile(f.Dir, from.Image)
			if !ok {
				continue // an image
			}
			s.Below, err = Load(ctx, []string{path}, Options{Args: opt.Args, below: opt.below + 1})
			var ps frontend.Problems
			if err != nil && !errors.As(err, &ps) {
				return nil, err
			}
			problems = append(problems, ps...)
		}
	}
	return problems, nil
}

func hasLayer(files []*frontend.File, name string) bool {
	return slices.ContainsFunc(files, func(f *frontend.File) bool { return f.Name == name })
}

// layerFileName is the usual name of a layer's file, the inverse of LayerName.
func layerFileName(layer string) string {
	if layer == "base" {
		return "Containerfile"
	}
	return "Containerfile." + layer
}

// layerFile returns the file in a directory that the name of a layer stands for.
func layerFile(dir, layer string) (path string, ok bool) {
	if layer == "" || strings.ContainsAny(layer, "/\x00") {
		return "", false
	}
	name := layerFileName(layer)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", false
	}
	// The exact name first; else a file whose layer name is the one asked for,
	// as Containerfile.JuliaSR is juliasr.
	for _, e := range entries {
		if e.Name() == name {
			return filepath.Join(dir, name), true
		}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "Containerfile") && layername.Of(e.Name()) == layer {
			return filepath.Join(dir, e.Name()), true
		}
	}
	return "", false
}

// maxText bounds the files that people write for clayer: lists of patterns and
// of layers, and what an operating system says of itself.
const maxText = 4 << 20

// ReadIgnore reads a file of patterns; one that is not there has none.
func ReadIgnore(path string) ([]string, error) {
	text, err := safefile.Read(path, maxText)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ignorefile.ReadAll(bytes.NewReader(text))
}
