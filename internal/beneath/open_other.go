//go:build !linux

package beneath

import (
	"errors"
	"fmt"
	"os"
)

var errSystem = fmt.Errorf("open below a directory: only on Linux: %w", errors.ErrUnsupported)

// Open returns an error that wraps errors.ErrUnsupported on this system.
func Open(string, string, int) (*os.File, error) { return nil, errSystem }

// Parents opens directories.
type Parents struct{ Dir string }

// Of returns an error that wraps errors.ErrUnsupported on this system.
func (*Parents) Of(string) (int, string, error) { return -1, "", errSystem }

// Close does nothing on this system.
func (*Parents) Close() {}

// Moved reports nothing on this system.
func Moved(error) bool { return false }
