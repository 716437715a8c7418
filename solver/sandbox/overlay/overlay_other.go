//go:build !linux

package overlay

import (
	"errors"
	"os"

	"github.com/clayer/clayer/solver/sandbox"
)

// An Overlay does not exist on this system.
type Overlay struct{}

// Sandbox returns nothing on this system.
func (*Overlay) Sandbox() *sandbox.Sandbox { return nil }

// New returns an error that wraps sandbox.ErrUnavailable on this system.
func New(sandbox.Options) (*Overlay, error) {
	return nil, sandbox.Unavailable("overlay", errors.New("it needs Linux"))
}

// RemoveAll is os.RemoveAll on this system.
func RemoveAll(dir string) error { return os.RemoveAll(dir) }

// Check returns an error that wraps sandbox.ErrUnavailable on this system.
func Check(opt sandbox.Options) (how string, err error) {
	_, err = New(opt)
	return "", err
}
