//go:build !linux

package rootfs

import (
	"context"
	"errors"
	"os"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
	"github.com/clayer/clayer/solver/internal/unsynced"
)

// errOther says that this system has no roots to write.
var errOther = errors.New("changing a root works on Linux alone")

type transaction struct{ next record.State }

// Apply works on Linux alone.
func (l *Lock) Apply(context.Context, record.Applied, snapshot.Changes) (unpack.Result, error) {
	return unpack.Result{}, errOther
}

// Adopt works on Linux alone.
func (l *Lock) Adopt(context.Context, record.Applied, snapshot.Changes) (unpack.Result, error) {
	return unpack.Result{}, errOther
}

// Undo works on Linux alone.
func (l *Lock) Undo(context.Context, int, bool) (*Undone, error) { return nil, errOther }

// Commit works on Linux alone.
func (l *Lock) Commit(string, []record.LayerKeys, []record.Var) error { return errOther }

// KeepProfile works on Linux alone.
func (l *Lock) SetProfile(context.Context, bool, []byte, bool) ([]Preserved, error) {
	return nil, errOther
}

// Look calls f, which may unlock nothing.
func (l *Lock) Look(f func(inroot.Locked) error) error { return f(nil) }

// ErrStateGone says that the state directory was removed while its lock was held.
var ErrStateGone = errors.New("the state of clayer was removed")

// ErrStateCovered says that something was mounted over the state directory.
var ErrStateCovered = errors.New("something is mounted over the state of clayer")

// ErrStateCopied says that the state directory was replaced by a copy of it.
var ErrStateCopied = errors.New("the state of clayer was replaced by a copy")

// Resettle has nothing to do.
func (l *Lock) Resettle() (string, error) { return "", nil }

func (l *Lock) settle() error { return nil }

func (l *Lock) afterPowerLoss() error { return nil }

func (l *Lock) lost() *unsynced.Lost { return new(unsynced.Lost) }

// ReserveForRun fails.
func (l *Lock) ReserveForRun() error { return errOther }

// Spending calls op.
func (l *Lock) Spending(op func() error) error { return op() }

// SaveDatabases works on Linux alone.
func (l *Lock) SaveDatabases(...string) error { return errOther }

// OpenSaved works on Linux alone.
func (l *Lock) OpenSaved(string) (*os.File, error) { return nil, errOther }

// Rollback has nothing to roll back.
func (l *Lock) Rollback() error { return nil }

func (l *Lock) rollback(int) error { return errOther }

// SetLost works on Linux alone.
func (l *Lock) SetLost([]string) error { return errOther }

func (r *Root) cleanup(*record.State) error { return nil }

// Revert works on Linux alone.

func (r *Root) Revert(_, _ []record.Event) (snapshot.Changes, error) { return nil, errOther }

// RevertOf works on Linux alone.
func (r *Root) RevertOf(_, _ []record.Event, _ func(string) bool) (snapshot.Changes, error) {
	return nil, errOther
}

// Wrote works on Linux alone.
func (r *Root) Wrote(record.Event) ([]string, error) { return nil, errOther }
