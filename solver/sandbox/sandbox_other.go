//go:build !linux

package sandbox

import "fmt"

// NewOverlay returns an error that wraps ErrUnavailable on this system.
func NewOverlay(Options) (Sandbox, error) {
	return nil, fmt.Errorf("overlay %w: it needs Linux", ErrUnavailable)
}

// NewInPlace returns an error that wraps ErrUnavailable on this system.
func NewInPlace(Options) (Sandbox, error) {
	return nil, fmt.Errorf("inplace %w: it needs Linux", ErrUnavailable)
}
