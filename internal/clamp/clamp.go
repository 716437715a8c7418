// Package clamp gives what a RUN wrote the time that SOURCE_DATE_EPOCH says, so that the same
// RUN leaves the same bytes at another time.
package clamp

import (
	"encoding/binary"
	"path"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/tree"
)

// An Item is something that gets another time.
type Item struct {
	Path string

	// Source is of a compiled Python module whose source gets the time, too: what a
	// header that fits the source says of it. nil: of anything else.
	Source *Source
}

// A Source is what a compiled Python module holds of its source, if anything: 32 bits of each.
type Source struct{ ModTime, Size uint32 }

// Plan returns the items of what a RUN wrote.
func Plan(written []tree.Fresh) []Item {
	sources := make(map[string]*Source)
	for _, w := range written {
		if w.File && strings.HasSuffix(w.Path, ".py") {
			sources[w.Path] = &Source{uint32(w.ModTime.Unix()), uint32(w.Size)}
		}
	}
	items := make([]Item, 0, len(written))
	for _, w := range written {
		it := Item{Path: w.Path}
		if w.File {
			it.Source = sources[sourceOf(w.Path)]
		}
		items = append(items, it)
	}
	return items
}

// sourceOf returns the path of what a compiled module is compiled from, as PEP 3147 has it:
// dir/__pycache__/name.cpython-312.opt-1.pyc, or dir/name.pyc beside it.
func sourceOf(compiled string) string {
	dir, name := path.Split(compiled)
	name, ok := strings.CutSuffix(name, ".pyc")
	if !ok {
		return ""
	}
	if above, ok := strings.CutSuffix(dir, "__pycache__/"); ok {
		dir = above
		name, _, _ = strings.Cut(name, ".")
	}
	return dir + name + ".py"
}

// header is how much of a compiled module has what it says of its source.
const header = 16

// patch returns the header of a compiled module as it has to be where the time of its source
// becomes to; false: as it is. Since Python 3.7 it is a magic number, flags, and then, where
// these are 0, time and size of the source (PEP 552); before, the time follows the magic number.
func patch(head []byte, of Source, to time.Time) ([]byte, bool) {
	if len(head) < header || string(head[2:4]) != "\r\n" {
		return nil, false
	}
	at := 0
	switch {
	case word(head, 4) == 0 && word(head, 8) == of.ModTime && word(head, 12) == of.Size:
		at = 8
	case word(head, 4) == of.ModTime && of.ModTime != 0:
		at = 4
	default:
		return nil, false // it does not fit its source, or goes by the content
	}
	patched := append([]byte(nil), head[:header]...)
	setWord(patched, at, uint32(to.Unix()))
	return patched, string(patched) != string(head[:header])
}

func word(b []byte, at int) uint32       { return binary.LittleEndian.Uint32(b[at:]) }
func setWord(b []byte, at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
