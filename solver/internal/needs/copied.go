package needs

import (
	"slices"

	"github.com/clayer/clayer/cache/snapshot"
)

// A Copied finds what programs need of a root that are copied into it as they are: by a COPY
// from a stage, whose base satisfied them there. nil finds nothing.
type Copied struct{ r Recorder }

// OfCopy returns a Copied for a step as Recorder has it.
func OfCopy(site *Site, covered func(path string) bool, chain []snapshot.Need) *Copied {
	return &Copied{Recorder{Site: site, Covered: covered, Chain: chain}}
}

// Of passes changes on, and notes what they need.
func (c *Copied) Of(changes snapshot.Changes) snapshot.Changes {
	if c == nil {
		return changes
	}
	return c.r.Of(changes)
}

// AddNeeds adds the libraries, interpreters and packages that were found to be needed. What
// the files replace is no need: a COPY doesn't depend on it.
func (c *Copied) AddNeeds(list []snapshot.Need) ([]snapshot.Need, error) {
	if c == nil {
		return list, nil
	}
	found, err := c.r.Needs()
	for _, n := range found {
		if slices.Contains([]snapshot.NeedKind{snapshot.NeedLibrary, snapshot.NeedInterpreter, snapshot.NeedPackage}, n.Kind) {
			list = append(list, n)
		}
	}
	return list, err
}
