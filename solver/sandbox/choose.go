package sandbox

import (
	"errors"
	"fmt"
)

// Kinds are the values that Choose takes.
var Kinds = []string{"auto", "overlay", "inplace"}

// An Engine makes sandboxes of one kind.
type Engine struct {
	Kind string
	Why  string // why it is chosen if it works and no other was tried before it

	// New returns a sandbox. The error wraps ErrUnavailable if this machine does
	// not allow one.
	New func(Options) (*Sandbox, error)

	// Check says how New would work, and writes nothing. Whether Options.Work can
	// hold views stays open.
	Check func(Options) (how string, err error)
}

// Choose returns a sandbox of the kind; with "auto", the first of the engines that
// works here, which it finds out by trying.
func Choose(kind string, opt Options, engines ...Engine) (*Sandbox, error) {
	return choose(kind, engines, func(e Engine) (*Sandbox, error) { return e.New(opt) })
}

// Check returns what Choose would return, without its views, and writes nothing.
func Check(kind string, opt Options, engines ...Engine) (*Sandbox, error) {
	return choose(kind, engines, func(e Engine) (*Sandbox, error) {
		how, err := e.Check(opt)
		return &Sandbox{Name: e.Kind, How: how}, err
	})
}

func choose(kind string, engines []Engine, try func(Engine) (*Sandbox, error)) (*Sandbox, error) {
	auto := kind == "auto" || kind == ""
	why := ""
	var refused []error
	for _, e := range engines {
		if !auto && e.Kind != kind {
			continue
		}
		s, err := try(e)
		switch {
		case err == nil && !auto:
			s.Why = "as asked"
			return s, nil
		case err == nil:
			if s.Why = e.Why; why != "" {
				s.Why = why
			}
			return s, nil
		case !auto || !errors.Is(err, ErrUnavailable):
			return nil, err
		}
		if why == "" {
			why = fmt.Sprintf("no %s here, %v", e.Kind, firstReason(err))
		}
		refused = append(refused, err)
	}
	if len(refused) > 0 {
		return nil, fmt.Errorf("no sandbox works here:\n  %w", joined{refused, "\n  "})
	}
	return nil, fmt.Errorf("sandbox %q: want auto, overlay or inplace", kind)
}
