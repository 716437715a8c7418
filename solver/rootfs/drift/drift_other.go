//go:build !linux

package drift

import (
	"context"
	"errors"
	"time"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

var errOther = errors.New("looking at a root works on Linux alone")

// Verify works on Linux alone.
func Verify(context.Context, string, record.Dir, inroot.Locked) ([]FileState, error) {
	return nil, errOther
}

// Diff works on Linux alone.
func Diff(context.Context, string, record.Dir, inroot.Locked) ([]FileState, error) {
	return nil, errOther
}

// Committed is zero: no root is committed here.
func Committed(record.Dir) (time.Time, error) { return time.Time{}, nil }

// DiffSince works on Linux alone.
func DiffSince(context.Context, string, record.Dir, time.Time, inroot.Locked) ([]FileState, error) {
	return nil, errOther
}
