// Package errhint attaches hints to errors: what the user can do about them.
package errhint

// hinted is an error with a hint. Its text is that of the error alone: where errors
// are printed, hints stand on lines of their own.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// With returns err with a hint.
func With(err error, hint string) error { return &hinted{err, hint} }

// Of returns the hints of err and of the errors that it wraps, the outermost first.
func Of(err error) (hints []string) {
	if h, ok := err.(*hinted); ok {
		hints = append(hints, h.hint)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		hints = append(hints, Of(e.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			hints = append(hints, Of(err)...)
		}
	}
	return hints
}

// Text returns the text of err, and its hints below it.
func Text(err error) string {
	text := err.Error()
	for _, hint := range Of(err) {
		text += "\nhint: " + hint
	}
	return text
}
