// Package fault has the error of an instruction that its writer must change, as yet without
// the position.
package fault

import "fmt"

// A Fault is what is wrong with an instruction. Hint says what to do; it may be "".
type Fault struct{ Message, Hint string }

func (f *Fault) Error() string { return f.Message }

// Errorf returns a Fault without a hint.
func Errorf(format string, args ...any) *Fault { return &Fault{Message: fmt.Sprintf(format, args...)} }

// WithHint sets the hint of f, and returns f.
func (f *Fault) WithHint(format string, args ...any) *Fault {
	f.Hint = fmt.Sprintf(format, args...)
	return f
}
