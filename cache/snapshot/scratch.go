package snapshot

import (
	"fmt"

	"github.com/clayer/clayer/internal/pathname"
)

// scratch are directories of temporary files. What a step leaves there is in its
// snapshot, for the later steps of its layer and of those that build on it; no root
// gets it. Their own metadata is in no snapshot: they are in every root, and as the
// machine has them.
var scratch = []string{"tmp", "var/tmp"}

// ScratchDirs returns the scratch directories, relative to the root.
func ScratchDirs() []string { return append([]string(nil), scratch...) }

// IsScratch reports whether the path of an entry is a scratch directory, or in one.
// Paths alone decide: what a SNAPSHOT instruction captures is for the root, wherever
// it is, and so is never asked about.
func IsScratch(p string) bool { return ScratchDir(p) != "" }

// ScratchDir returns the scratch directory that a path is, or is in; "" for none.
func ScratchDir(p string) string {
	for _, dir := range scratch {
		if pathname.Under(p, dir) {
			return dir
		}
	}
	return ""
}

// ForRoot returns what a root gets of the changes of a step: all but scratch. found,
// if not nil, is set if there was any.
func ForRoot(changes Changes, found *bool) Changes { return part(changes, false, found) }

// Scratch returns the other part of what ForRoot is given.
func Scratch(changes Changes) Changes { return part(changes, true, nil) }

func part(changes Changes, want bool, other *bool) Changes {
	return func(yield func(*Entry, error) bool) {
		for e, err := range changes {
			if err == nil && IsScratch(e.Path) != want {
				if other != nil {
					*other = true
				}
				if e.Release != nil {
					e.Release()
				}
				continue
			}
			if err == nil && e.Kind == Link && IsScratch(e.Target) != want {
				e, err = nil, &UnsafeError{Path: e.Path, Reason: fmt.Sprintf("a hard link to %q: one of the two is a temporary file", e.Target)}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}
