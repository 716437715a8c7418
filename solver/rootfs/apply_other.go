//go:build !linux

package rootfs

import (
	"context"
	"errors"

	"github.com/clayer/clayer/cache/snapshot"
)

// errOther says that this system has no roots to write.
var errOther = errors.New("changing a root works on Linux alone")

// UnpackOptions are how to unpack.
type UnpackOptions struct{ WithoutOpenat2 bool }

// Unpack applies a stream to a folder; it works on Linux alone.
func Unpack(context.Context, string, snapshot.Changes, UnpackOptions) (Result, error) {
	return Result{}, errOther
}

func (l *Lock) apply(context.Context, int, snapshot.Changes) (Result, error) {
	return Result{}, errOther
}

// Revert works on Linux alone.
func (r *Root) Revert([]Event) (snapshot.Changes, error) { return nil, errOther }
