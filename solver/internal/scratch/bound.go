package scratch

import (
	"fmt"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/internal/sizes"
)

// Most is how much scratch of a RUN its snapshot holds: file contents, and perEntry for
// each entry.
const (
	Most     = 256e6
	perEntry = 512
)

// sizeOf returns how much of the bound an entry takes: nothing outside of scratch.
func sizeOf(e *snapshot.Entry) int64 {
	if !snapshot.IsScratch(e.Path) || e.Kind == snapshot.Delete {
		return 0
	}
	if e.Data == nil {
		return e.Size + perEntry
	}
	n := int64(perEntry)
	for _, x := range e.Data {
		n += x.Length
	}
	return n
}

// An Excess is the scratch of a RUN that is more than its snapshot may hold.
type Excess struct {
	Paths []string
	Bytes int64
}

// Without hands on changes without the excess.
func (x *Excess) Without(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		*x = Excess{} // it may be read again
		left := int64(Most)
		dropped := make(map[string]bool)
		for e, err := range changes {
			if err == nil {
				n := sizeOf(e)
				if n > left || e.Kind == snapshot.Link && dropped[e.Target] {
					x.Paths, x.Bytes = append(x.Paths, e.Path), x.Bytes+n
					dropped[e.Path] = true
					continue
				}
				left -= n
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Deletions returns the changes that remove the excess, what is in a directory first.
func (x *Excess) Deletions() snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		gone := ""
		for _, p := range x.Paths {
			if gone != "" && pathname.Under(p, gone) {
				continue
			}
			gone = p
			if !yield(&snapshot.Entry{Path: p, Kind: snapshot.Delete}, nil) {
				return
			}
		}
	}
}

// Bound hands on the entries of a snapshot that a store has, and ends with an error
// where that holds more scratch than any RUN's does. What a COPY or FETCH puts there is
// as large as its source.
func Bound(s *dag.Step, changes snapshot.Changes) snapshot.Changes {
	if _, run := s.Instr.(*frontend.Run); !run {
		return changes
	}
	return func(yield func(*snapshot.Entry, error) bool) {
		left := int64(Most)
		for e, err := range changes {
			if err == nil {
				if left -= sizeOf(e); left < 0 {
					err = &snapshot.UnsafeError{Path: e.Path, Reason: fmt.Sprintf("more than %s of temporary files", sizes.Format(Most))}
				}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Below returns what of a SNAPSHOT's path is scratch: itself, or the directories
// that are below it. What the steps left there is in their snapshots, but for no root.
func Below(at string) (paths []string) {
	if snapshot.IsScratch(at[1:]) {
		return []string{at}
	}
	for _, dir := range snapshot.ScratchDirs() {
		if pathname.Under("/"+dir, at) {
			paths = append(paths, "/"+dir)
		}
	}
	return paths
}
