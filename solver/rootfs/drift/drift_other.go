//go:build !linux

package drift

import (
	"context"
	"errors"

	"github.com/clayer/clayer/solver/rootfs/record"
)

var errOther = errors.New("looking at a root works on Linux alone")

// Verify works on Linux alone.
func Verify(context.Context, string, record.Dir) ([]FileState, error) { return nil, errOther }

// Diff works on Linux alone.
func Diff(context.Context, string, record.Dir) ([]FileState, error) { return nil, errOther }
