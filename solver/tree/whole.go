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

	// Stand tells top-level names that are in Except only as stand-ins, for
	// the lower tree's entry of the same name; nil means none.
	Stand func(top string) bool

	Open func(path string) (*os.File, error)
	Keep Keep // nil means everything
}

// Changes returns the entries of the path and what is below it. The folders
// above it are implied ones.
func (w *Whole) Changes() snapshot.Changes {
	var l plan
	ex := int32(-1)
	if w.Except != nil {
		ex = 0
	}
	w.folder(&l, "", 0, ex, true)
	return l.stream(w.Reading, w.Open)
}

// folder walks the folder at i, whose counterpart in Except is at x (-1: none).
// above says that the folder lies above the path.
func (w *Whole) folder(l *plan, at string, i, x int32, above bool) {
	there := make(map[string]int32)
	if x >= 0 {
		for _, c := range w.Except.list(x) {
			there[w.Except.nodes[c].Name] = c
		}
	}
	for _, c := range w.Reading.list(i) {
		n := &w.Reading.nodes[c]
		p := join(at, n.Name)
		if w.Keep != nil && w.Keep.Prune(p) || n.nothing() {
			continue
		}
		xc, has := there[n.Name]
		if !has {
			xc = -1
		} else if at == "" && w.Stand != nil && w.Stand(n.Name) {
			has = false
		}
		above := above && w.Below != "" && p != w.Below
		leave := func() {}
		switch {
		case has:
		case above:
			l.steps = append(l.steps, step{p, c, implied})
		case n.isDir():
			leave = l.enter(w.Keep, p, c)
		default:
			l.add(w.Keep, p, c)
		}
		if n.isDir() {
			w.folder(l, p, c, xc, above)
		}
		leave()
	}
}
