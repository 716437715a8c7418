// Package fault says what the writer of a Containerfile has to change.
package fault

import (
	"errors"
	"fmt"
	"strings"

	"github.com/clayer/clayer/frontend"
)

// A Fault is something that the writer of the Containerfile must change, as
// yet without its position.
type Fault struct {
	Message string
	Detail  string // more lines
	Hint    string
	Err     error // what it came from; may be nil
}

func (f *Fault) Error() string {
	if f.Detail == "" {
		return f.Message
	}
	return f.Message + ": " + strings.ReplaceAll(f.Detail, "\n", "; ")
}

// Unwrap returns f.Err.
func (f *Fault) Unwrap() error { return f.Err }

// At returns the fault as a problem of the instruction m.
func (f *Fault) At(m *frontend.Meta) *frontend.Problem {
	return &frontend.Problem{
		Pos: m.Pos, Word: m.Word, Line: m.Text,
		Message: f.Message, Detail: f.Detail, Hint: f.Hint, Err: f.Err,
	}
}

// Of returns the fault that an error is, or else one of its text and a hint.
func Of(err error, hint string) *Fault {
	if f := (*Fault)(nil); errors.As(err, &f) {
		return f
	}
	return &Fault{Message: err.Error(), Hint: hint, Err: err}
}

// New returns a fault of which a message says all.
func New(format string, args ...any) *Fault {
	return &Fault{Message: fmt.Sprintf(format, args...)}
}
