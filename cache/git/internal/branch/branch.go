// Package branch knows the files of a branch with snapshots: where they are, and which one a
// snapshot gets.
package branch

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
)

// The directories of the branch: those of the snapshots of steps, and of layers.
const (
	Keys   = "keys"
	Layers = "layers"
)

// StepPath returns the path of the file of the n-th snapshot of a key, from 1.
func StepPath(k key.Key, n int) string {
	hex := k.String()
	name := path.Join(Keys, hex[:2], hex)
	if n > 1 {
		name += "." + strconv.Itoa(n)
	}
	return name + ".json"
}

// StepPaths returns the paths of all files that a key may have, that of the first first.
func StepPaths(k key.Key) []string {
	names := make([]string, cache.MaxVariants)
	for i := range names {
		names[i] = StepPath(k, i+1)
	}
	return names
}

// KeyOf returns the key of which a file has a snapshot.
func KeyOf(name string) (k key.Key, ok bool) {
	hex, _, _ := strings.Cut(path.Base(name), ".")
	k, err := key.Parse(hex)
	return k, err == nil && slices.Contains(StepPaths(k), name)
}

// LayerPath returns the path of the file of a layer, "" for what is no tag of one.
func LayerPath(tag string) string {
	const digits = 16 // of the key, at the end
	if len(tag) < digits {
		return ""
	}
	return path.Join(Layers, tag[len(tag)-digits:][:2], tag+".json")
}

// A Shelf is the snapshots that the branch has of a key, with those that a push adds. The
// first of them need not be the one of StepPath(k, 1): that may be damaged.
type Shelf struct {
	Snapshots cache.Variants
	Paths     []string // of their files
}

// Put puts a snapshot onto the shelf as Variants.Place says, and returns the path of its
// file. It reports false where the one that is there stays. gone are the files that go.
func (s *Shelf) Put(d cache.Descriptor) (name string, gone []string, stores bool) {
	i, stores := s.Snapshots.Place(d)
	if i < len(s.Snapshots) && s.Snapshots[i].Digest == d.Digest && s.Snapshots[i].VariantID() == d.VariantID() {
		stores = false // nothing is new
	}
	switch {
	case d.Replaces == cache.AllVariants && len(s.Paths) > 0:
		if name = s.Paths[0]; stores {
			name, s.Snapshots[0] = StepPath(d.Key, 1), d
		}
		gone = slices.DeleteFunc(s.Paths, func(p string) bool { return p == name })
		s.Snapshots, s.Paths = s.Snapshots[:1:1], []string{name}
		return name, gone, stores
	case i < len(s.Snapshots):
		if stores {
			s.Snapshots[i] = d
		}
		return s.Paths[i], nil, stores
	}
	for at, name := range StepPaths(d.Key) {
		if !slices.Contains(s.Paths, name) {
			s.Snapshots, s.Paths = slices.Insert(s.Snapshots, at, d), slices.Insert(s.Paths, at, name)
			return name, nil, true
		}
	}
	panic("branch: more snapshots than files")
}
