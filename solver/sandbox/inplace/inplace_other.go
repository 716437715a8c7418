//go:build !linux

package inplace

import (
	"context"
	"errors"
	"os"

	"github.com/clayer/clayer/solver/sandbox"
)

// New returns an error that wraps sandbox.ErrUnavailable on this system.
func New(sandbox.Options) (*sandbox.Sandbox, error) {
	return nil, sandbox.Unavailable("inplace", errors.New("it needs Linux"))
}

// Check returns an error that wraps sandbox.ErrUnavailable on this system.
func Check(opt sandbox.Options) (how string, err error) {
	_, err = New(opt)
	return "", err
}

// Exec returns an error that wraps sandbox.ErrUnavailable on this system.
func Exec(context.Context, sandbox.Options, sandbox.Command, *os.File, *os.File, *os.File) error {
	_, err := New(sandbox.Options{})
	return err
}
