// Package merge turns entries of a snapshot that change a database into changes of the
// database that a root has: the records of the machine stay.
package merge

import (
	"fmt"

	"github.com/clayer/clayer/solver/internal/databases"
)

// A ConflictError says that records of a database cannot be changed, since the root has
// others in their place. Nothing more is applied then.
type ConflictError struct {
	Path      string // relative to the root
	Conflicts []databases.Conflict
}

func (e *ConflictError) Error() string { return "the step needs " + e.Need() }

// Need says what the root does not allow.
func (e *ConflictError) Need() string {
	text := fmt.Sprintf("a change of /%s that is not possible here: %s", e.Path, e.Conflicts[0])
	if n := len(e.Conflicts); n > 1 {
		text += fmt.Sprintf(" (and %d more)", n-1)
	}
	return text
}
