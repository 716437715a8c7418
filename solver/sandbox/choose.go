package sandbox

import (
	"errors"
	"fmt"
)

// Kinds are the values that Choose takes.
var Kinds = []string{"auto", "overlay", "inplace"}

// Choose returns a sandbox of the kind, and in words why it is this one. With
// "auto" it is the first that works here: an overlay leaves the root untouched
// until all is well, and builds side by side; in place works everywhere. What
// works is found out by doing it.
func Choose(kind string, opt Options) (s Sandbox, why string, err error) {
	switch kind {
	case "overlay":
		s, err = NewOverlay(opt)
		return s, "as asked", err
	case "inplace":
		s, err = NewInPlace(opt)
		return s, "as asked", err
	case "auto", "":
	default:
		return nil, "", fmt.Errorf("sandbox %q: want auto, overlay or inplace", kind)
	}
	s, err = NewOverlay(opt)
	if !errors.Is(err, ErrUnavailable) {
		return s, "it keeps the root untouched", err
	}
	none := err
	if s, err = NewInPlace(opt); errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("no sandbox works here:\n  %w\n  %w", none, err)
	}
	return s, "no overlay here, " + short(none), err
}

// short is the first of the reasons: Diagnose tells them all.
func short(err error) string {
	var r *reason
	if errors.As(err, &r) && len(r.errs) > 0 {
		return r.errs[0].Error()
	}
	return err.Error()
}

// Reason is why a sandbox is not available, without the words around it.
func Reason(err error) string {
	var r *reason
	if errors.As(err, &r) {
		return r.Error()
	}
	return err.Error()
}

// A reason wraps ErrUnavailable, and says why in one line.
type reason struct{ errs []error }

func (r *reason) Error() string {
	text := ""
	for i, err := range r.errs {
		if i > 0 {
			text += "; "
		}
		text += err.Error()
	}
	return text
}

func (r *reason) Unwrap() []error { return append([]error{ErrUnavailable}, r.errs...) }
