// Package metadata sets what files have beside their content, as far as this user may. A
// directory gets its time when all is in it: a Tree remembers that.
package metadata

import "fmt"

// Foreign counts files whose owner is neither root nor one that this user, or its user
// namespace, may give them.
type Foreign struct {
	Files    int
	Path     string // the first
	UID, GID int    // of that one
}

// Add adds what another one counted.
func (f *Foreign) Add(more Foreign) {
	if f.Files == 0 || more.Files > 0 && more.Path < f.Path {
		f.Path, f.UID, f.GID = more.Path, more.UID, more.GID
	}
	f.Files += more.Files
}

// String names the first, and says whose it should be.
func (f Foreign) String() string {
	text := fmt.Sprintf("/%s", f.Path)
	if f.Files > 1 {
		text += fmt.Sprintf(" (and %d more)", f.Files-1)
	}
	return fmt.Sprintf("%s: owner %d:%d", text, f.UID, f.GID)
}
