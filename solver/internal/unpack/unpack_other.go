//go:build !linux

package unpack

import (
	"context"
	"errors"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
)

// Unpack applies a stream to a directory; it works on Linux alone.
func Unpack(context.Context, string, snapshot.Changes, Options) (Result, error) {
	return Result{}, errors.New("changing a root works on Linux alone")
}

// SetMetadataOf does nothing: there is no root below another one.
func SetMetadataOf(inroot.Sys, string, string, []string) error { return nil }
