// Package preserved says what an undo has left: paths that stay as the user has them, in
// warnings, and what it could not do.
package preserved

import (
	"fmt"
	"slices"

	"github.com/clayer/clayer/solver/rootfs"
)

// An Error is the warning that a path stays as the user has it.
type Error struct {
	rootfs.Preserved
	Within int // directories in it that stay too, for the same reason
}

func (e *Error) Error() string {
	what := ""
	if e.Within > 0 {
		what = fmt.Sprintf(", with %d of the directories in it", e.Within)
		if e.Within == 1 {
			what = ", with a directory in it"
		}
	}
	return fmt.Sprintf("preserved /%s%s: %s", e.Path, what, e.Why)
}

// Errors returns a warning for each file, and for each directory that is not empty but is
// in no other such one: an import by Python leaves a file in every directory of a package.
func Errors(paths []rootfs.Preserved) []error {
	var errs []error
	dirs := make(map[string]*Error)
	for _, p := range paths {
		if p.Why == rootfs.NotEmpty {
			dirs[p.Path] = &Error{Preserved: p}
		}
	}
	for _, p := range paths {
		if top := topmost(dirs, p.Path); dirs[p.Path] != nil && top != p.Path {
			dirs[top].Within++
		}
	}
	for _, p := range paths {
		switch d := dirs[p.Path]; {
		case d == nil:
			errs = append(errs, &Error{Preserved: p})
		case topmost(dirs, p.Path) == p.Path && !slices.Contains(errs, error(d)):
			errs = append(errs, d)
		}
	}
	return errs
}

// topmost returns the shortest path in dirs that holds path, or is it; "" for none.
func topmost(dirs map[string]*Error, path string) string {
	for i := range path {
		if path[i] == '/' && dirs[path[:i]] != nil {
			return path[:i]
		}
	}
	if dirs[path] != nil {
		return path
	}
	return ""
}

// NotUndone returns what an undo could not restore.
func NotUndone(u *rootfs.Undone) (errs []error) {
	for _, p := range u.Problems {
		errs = append(errs, fmt.Errorf("/%s: %w", p.Path, p.Err))
	}
	for _, p := range u.Lost {
		errs = append(errs, fmt.Errorf("/%s: what stood there before can't come back: the step ran on the root itself", p))
	}
	return errs
}
