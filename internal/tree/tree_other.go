//go:build !linux

package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// errSystem is what everything that looks at a tree returns here: the marks of
// overlayfs and the meaning of ctime are Linux's.
var errSystem = fmt.Errorf("read a tree: only on Linux: %w", errors.ErrUnsupported)

// Read returns an error that wraps errors.ErrUnsupported on this system.
func Read(context.Context, string, Options) (*Reading, error) { return nil, errSystem }

// OpenAt returns an error that wraps errors.ErrUnsupported on this system.
func OpenAt(string, string, int) (*os.File, error) { return nil, errSystem }

// Barrier returns an error that wraps errors.ErrUnsupported on this system.
func Barrier(context.Context, string, *Reading) error { return errSystem }

func extents(*os.File, int64) ([]extent, error) { return nil, errSystem }

// Probe returns an error that wraps errors.ErrUnsupported on this system.
func Probe(string) (Trust, error) { return Trust{}, errSystem }

// A Trust says what ctime shows in a file system.
type Trust struct {
	Doubt  string
	Xattrs bool
}

// IsClock reports whether an error is Barrier's about the clock.
func IsClock(error) bool { return false }

func fillStill(func(string) (*os.File, error)) filler { return nil }

type lowerDir []struct{}

func openLower([]string) (lowerDir, error)          { return nil, errSystem }
func (lowerDir) directory(string) (lowerDir, error) { return nil, errSystem }
func (lowerDir) list() ([]string, error)            { return nil, errSystem }
func (lowerDir) stat(string, func(uint32, uint32) (uint32, uint32)) (*seen, error) {
	return nil, errSystem
}
func (lowerDir) close()   {}
func major(uint64) uint32 { return 0 }
func minor(uint64) uint32 { return 0 }
