//go:build !linux

package sandbox

import "fmt"

// NewOverlay returns an error that wraps ErrUnavailable on this system.
func NewOverlay(OverlayOptions) (Sandbox, error) {
	return nil, fmt.Errorf("overlay %w: it needs Linux; --sandbox=inplace does not", ErrUnavailable)
}
