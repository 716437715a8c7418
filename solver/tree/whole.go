package tree

import (
	"os"

	"github.com/clayer/clayer/cache/snapshot"
)

// Whole is a path of a merged tree that is told as it stands.
type Whole struct {
	// Reading is of the merged tree, restricted to Below.
	Reading *Reading
	Below   string

	// Except holds what the receiver of the stream has already: a reading of
	// the upper folder. An entry that stands there too is left out, whatever
	// it looks like; nil leaves nothing out.
	Except *Reading

	// Stand tells paths that are in Except only as stand-ins for what the lower
	// tree has there; nil means none.
	Stand func(path string) bool

	// Told says of paths that the receiver has them already; nil means none.
	Told func(path string) bool

	Open func(path string) (*os.File, error)
	Keep Keep // nil means everything
}

// Changes returns the entries of the path and what is below it. The folders
// above it are implied ones.
func (w *Whole) Changes() snapshot.Changes {
	l := newPlan(w.Keep)
	ex := int32(-1)
	if w.Except != nil {
		ex = 0
	}
	w.folder(&l, "", 0, ex, true)
	return l.stream(w.Reading, fillFrom(w.Open))
}

// folder walks the folder at i, whose counterpart in Except is at x (-1: none).
// above says that the folder lies above the path.
func (w *Whole) folder(l *plan, at string, i, x int32, above bool) {
	for c := range w.Reading.children(i) {
		n := w.Reading.at(c)
		p := join(at, n.Name)
		if w.Keep != nil && w.Keep.Prune(p) || n.nothing() || n.is(mount) {
			continue
		}
		xc := w.Except.child(x, n.Name)
		has := xc >= 0 && !(w.Stand != nil && w.Stand(p))
		has = has || w.Told != nil && w.Told(p)
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
			w.folder(l, p, c, xc, above)
		}
		leave()
	}
}
