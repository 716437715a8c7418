//go:build !linux

package clamp

import (
	"errors"
	"fmt"
	"time"
)

// Set returns an error that wraps errors.ErrUnsupported on this system.
func Set(string, []Item, time.Time) error {
	return fmt.Errorf("set times: only on Linux: %w", errors.ErrUnsupported)
}
