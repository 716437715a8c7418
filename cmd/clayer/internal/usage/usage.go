// Package usage has the errors by which commands choose an exit code: 2 for a fault of
// the command line.
package usage

import (
	"errors"
	"fmt"
)

// An Error is a fault of the command line.
type Error struct{ Err error }

func (e Error) Error() string { return e.Err.Error() }
func (e Error) Unwrap() error { return e.Err }

// Errorf returns an Error with the text and the causes that fmt.Errorf gives it.
func Errorf(format string, args ...any) error { return Error{fmt.Errorf(format, args...)} }

// ErrReported ends a command whose output already says what is wrong.
var ErrReported = errors.New("see above")
