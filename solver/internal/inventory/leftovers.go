package inventory

import (
	"slices"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/pathname"
)

// Counting passes changes on, and counts those that are more than what package
// managers leave behind when there is nothing to install.
func Counting(changes snapshot.Changes, n *int) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		*n = 0 // it may be read again
		for e, err := range changes {
			if err == nil && !isLeftover(e) {
				*n++
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// leftovers are directories of lists, caches and logs, and of temporary files.
var leftovers = []string{"tmp", "var/tmp", "var/cache", "var/log", "var/lib/apt", "var/lib/dnf"}

func isLeftover(e *snapshot.Entry) bool {
	return slices.ContainsFunc(leftovers, func(dir string) bool {
		return pathname.Under(e.Path, dir) || e.Kind == snapshot.Dir && pathname.Under(dir, e.Path)
	})
}
