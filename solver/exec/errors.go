package exec

import (
	"errors"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec/internal/failure"
	"github.com/clayer/clayer/solver/rootfs"
)

// Errors that decide the exit code. Others are *BuildError, and those of the
// packages below.
var (
	// ErrStore says that a store failed, under RequireCache.
	ErrStore = errors.New("a store failed")
	// ErrRoot says that the root could not be changed, or was changed in part.
	ErrRoot = rootfs.ErrRoot
)

// An OverlayError says that an overlay was asked for which this machine does not
// allow. A sandbox in place may work.
type OverlayError struct{ Err error }

func (e *OverlayError) Error() string { return e.Err.Error() }
func (e *OverlayError) Unwrap() error { return e.Err }

// A BuildError says which step failed.
type BuildError = failure.BuildError

// Problem returns what the Containerfile's writer has to mend, and nil for an
// error that is no fault of the file.
func Problem(s *dag.Step, err error) *frontend.Problem { return failure.Problem(s, err) }
