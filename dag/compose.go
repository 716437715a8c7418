package dag

import (
	"errors"
	"fmt"
	"strings"

	"github.com/clayer/clayer/frontend"
)

// Scratch is the image name that stands for the bare root.
const Scratch = "scratch"

// ErrSameName is the kind of a problem with a layer that has the name of another.
var ErrSameName = errors.New("two layers of one name")

// compose makes the layers, in composition order, and sets what each builds on.
func (g *Graph) compose(files []*frontend.File) frontend.Problems {
	var problems frontend.Problems
	byName := make(map[string]*frontend.File)
	for _, f := range files {
		if first, ok := byName[f.Name]; ok {
			problems = append(problems, &frontend.Problem{
				Pos:     frontend.Pos{File: f.Path},
				Message: fmt.Sprintf("layer %q is defined twice, here and in %s", f.Name, first.Path),
				Hint:    "give one of them another name",
				Err:     ErrSameName,
			})
			continue
		}
		byName[f.Name] = f
	}

	done := make(map[*frontend.File]*Layer)
	var path []*frontend.File // from a composed file along FROM to the one visited
	var visit func(f *frontend.File) *Layer
	visit = func(f *frontend.File) *Layer {
		if l, ok := done[f]; ok {
			return l
		}
		for i, p := range path {
			if p == f {
				problems = append(problems, cycle(path[i:]))
				return nil
			}
		}
		path = append(path, f)
		defer func() { path = path[:len(path)-1] }()

		l := &Layer{Name: f.Name, File: f}
		from := BuildsOn(f)
		switch {
		case from == nil || from.Image != Scratch && byName[from.Image] == nil:
			l.Ordered = true // on the layer before, which is known once this one is reached
		case from.Image == Scratch:
		default:
			l.On = visit(byName[from.Image])
		}
		if l.Ordered && len(g.Layers) > 0 {
			l.On = g.Layers[len(g.Layers)-1]
		}
		l.Ordered = l.Ordered && l.On != nil
		l.index = len(g.Layers)
		done[f] = l
		g.Layers = append(g.Layers, l)
		return l
	}
	for _, f := range files {
		if byName[f.Name] == f {
			visit(f)
		}
	}
	return problems
}

// BuildsOn returns the FROM of a file that may name a layer, and nil where it
// has none.
func BuildsOn(f *frontend.File) *frontend.From {
	for _, in := range f.Instructions {
		if from, ok := in.(*frontend.From); ok && !from.Stage {
			return from
		}
	}
	return nil
}

// cycle reports a cycle of FROMs as "a → b → a".
func cycle(path []*frontend.File) *frontend.Problem {
	names := make([]string, 0, len(path)+1)
	for _, f := range path {
		names = append(names, f.Name)
	}
	names = append(names, path[0].Name)
	last := path[len(path)-1]
	p := &frontend.Problem{
		Pos:     frontend.Pos{File: last.Path},
		Word:    "FROM",
		Message: "layers build on each other in a cycle: " + strings.Join(names, " → "),
		Hint:    "FROM scratch builds on the bare root; FROM an image has no effect",
	}
	if from := BuildsOn(last); from != nil {
		p.Pos, p.Line = from.Pos, from.Text
	}
	return p
}
