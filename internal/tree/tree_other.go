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

func (*Reading) restamp(int, string, int32) error { return errSystem }

type source struct{}

func newSource(func(string) (*os.File, error), string) *source { return nil }
func (*source) close()                                         {}
func fillStill(*source) filler                                 { return nil }
func fillFrom(*source) filler                                  { return nil }

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
