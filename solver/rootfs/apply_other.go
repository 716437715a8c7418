//go:build !linux

package rootfs

import (
	"context"
	"errors"
	"os"
	"time"

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

type transaction struct{ next State }

// Apply works on Linux alone.
func (l *Lock) Apply(context.Context, Applied, snapshot.Changes) (Result, error) {
	return Result{}, errOther
}

// Adopt works on Linux alone.
func (l *Lock) Adopt(context.Context, Applied, snapshot.Changes) (Result, error) {
	return Result{}, errOther
}

// Undo works on Linux alone.
func (l *Lock) Undo(context.Context, int, bool) (*Undone, error) { return nil, errOther }

// Commit works on Linux alone.
func (l *Lock) Commit(string, []LayerKeys, []Var) error { return errOther }

// Rollback has nothing to take back.
func (l *Lock) Rollback() error { return nil }

func (r *Root) rollback(int) error { return errOther }

func (r *Root) cleanup(*State) error { return nil }

func changedAt(f *os.File) (time.Time, error) {
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// Verify works on Linux alone.
func (r *Root) Verify(context.Context) ([]FileState, error) { return nil, errOther }

// Diff works on Linux alone.
func (r *Root) Diff(context.Context) ([]FileState, error) { return nil, errOther }

// Committed is zero: no root is committed here.
func (r *Root) Committed() (time.Time, error) { return time.Time{}, nil }

// DiffSince works on Linux alone.
func (r *Root) DiffSince(context.Context, time.Time) ([]FileState, error) { return nil, errOther }

// Revert works on Linux alone.
func (r *Root) Revert([]Event) (snapshot.Changes, error) { return nil, errOther }
