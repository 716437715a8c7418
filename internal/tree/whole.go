package tree

import (
	"os"

	"github.com/clayer/clayer/cache/snapshot"
)

// Whole is a path of a merged tree that is reported as it is.
type Whole struct {
	// Reading is of the merged tree, restricted to Below.
	Reading *Reading
	Below   string

	// Except holds what the receiver of the stream has already: a reading of
	// the upper directory. An entry that stands there too is left out, whatever
	// it looks like; nil leaves nothing out.
	Except *Reading

	// Stand reports paths that are in Except only as stubs for what the lower
	// tree has there; nil means none.
	Stand func(path string) bool

	// Reported says of paths whether the receiver has them already; nil means none.
	Reported func(path string) bool

	// Open opens a file of the merged tree for reading. With Dir, its directory, nobody asks it.
	Open   func(path string) (*os.File, error)
	Dir    string
	Filter Filter // nil means everything
}

// Changes returns the entries of the path and what is below it. The directories
// above it are implied ones.
func (w *Whole) Changes() snapshot.Changes {
	l := newPlan(w.Filter)
	ex := int32(-1)
	if w.Except != nil {
		ex = 0
	}
	w.directory(&l, "", 0, ex, true)
	return l.stream(w.Reading, fillFrom, newSource(w.Open, w.Dir))
}

// directory walks the directory at i, whose counterpart in Except is at x (-1: none).
// above says that the directory lies above the path.
func (w *Whole) directory(l *plan, at string, i, x int32, above bool) {
	for c := range w.Reading.children(i) {
		n := w.Reading.at(c)
		p := join(at, n.Name)
		if w.Filter != nil && w.Filter.Prune(p) || n.nothing() || n.is(mount) {
			continue
		}
		xc := w.Except.child(x, n.Name)
		has := xc >= 0 && !(w.Stand != nil && w.Stand(p))
		has = has || w.Reported != nil && w.Reported(p)
		has = has && !snapshot.IsScratch(p) // the steps' own is for the root only now
		above := above && w.Below != "" && p != w.Below
		leave := func() {}
		switch {
		case has:
		case above:
			l.steps = append(l.steps, step{p, c, implied})
		case n.isDir():
			leave = l.enter(p, c)
		default:
			l.add(p, c)
		}
		if n.isDir() {
			w.directory(l, p, c, xc, above)
		}
		leave()
	}
}
