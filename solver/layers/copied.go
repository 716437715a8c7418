package layers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
)

// loadCopied has what a file copies from, or mounts, by the name of a layer be that layer, and no
// image: of the composition, or of a file beside it. It is built as a stage that begins with the
// layer.
func loadCopied(ctx context.Context, f *frontend.File, files []*frontend.File, opt Options) (problems frontend.Problems, err error) {
	at, err := filepath.Abs(f.Path)
	if err != nil {
		return nil, err
	}
	above := append(opt.above[:len(opt.above):len(opt.above)], at)
	made := make(map[string]*frontend.File)
	f.Origins(func(m *frontend.Meta, o *frontend.Origin) {
		if err != nil || o.Image == nil || strings.ContainsAny(o.From, "/:@.") || isContext(o.From, opt.Args) {
			return
		}
		path, ok := layerFile(f.Dir, o.From)
		if i := slices.IndexFunc(files, func(g *frontend.File) bool { return g.Name == o.From }); i >= 0 {
			path, ok = files[i].Path, true
		}
		abs, aerr := filepath.Abs(path)
		if !ok || aerr != nil {
			return // an image
		}
		if slices.Contains(above, abs) {
			names := make([]string, 0, len(above)+1)
			for _, p := range append(above[slices.Index(above, abs):], abs) {
				names = append(names, filepath.Base(p))
			}
			problems = append(problems, &frontend.Problem{
				Pos: m.Pos, Word: m.Word, Line: m.Text,
				Message: fmt.Sprintf("--from=%s: layers copy from each other in a cycle: %s", o.From, strings.Join(names, " → ")),
			})
			return
		}
		stage := made[o.From]
		if stage == nil {
			stage = &frontend.File{
				Path: f.Path, Dir: f.Dir, Name: f.Name + "." + o.From, Source: f.Source, Lines: f.Lines, Stage: o.From, Uses: 1,
				Instructions: []frontend.Instruction{&frontend.From{Meta: frontend.Meta{Pos: m.Pos, Word: "FROM", Text: "FROM " + o.From}, Image: o.From}},
			}
			var ps frontend.Problems
			var below []*frontend.File
			below, lerr := Load(ctx, []string{path}, Options{Args: opt.Args, Names: map[string]string{path: o.From}, above: above})
			if lerr != nil && !errors.As(lerr, &ps) {
				err = lerr
				return
			}
			problems = append(problems, ps...)
			stage.Below, made[o.From] = below, stage
		}
		o.Stage, o.Image = stage, nil
	})
	return problems, err
}

func isContext(name string, args frontend.Args) bool {
	for c := range args.Contexts {
		if frontend.SameName(c, name) {
			return true
		}
	}
	return false
}
