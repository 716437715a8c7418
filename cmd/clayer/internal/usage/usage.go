// Package usage marks errors that are a fault of the command line. clayer exits with
// 2 for them.
package usage

import "fmt"

// An Error is a fault of the command line.
type Error struct{ Err error }

func (e Error) Error() string { return e.Err.Error() }
func (e Error) Unwrap() error { return e.Err }

// Errorf returns an Error with the text and the causes that fmt.Errorf gives it.
func Errorf(format string, args ...any) error { return Error{fmt.Errorf(format, args...)} }
