// Package sandbox runs a command in a root and reports what it changed.
//
// It is the contract between solves and the sandboxes: package overlay, which
// leaves the root untouched, and package inplace, which runs on the root itself.
// Choose opens the first Engine that works here. A View is a root as a step finds
// it: Run runs a Command in it and returns the changes as a stream of entries.
//
// The process that runs a command is this program again. So a program that builds
// steps calls Main first in its main function.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/internal/record"
)

// A Sandbox is a way to run commands on a root. Exactly one of Layered and
// InPlace is set: which one decides how a solve builds.
type Sandbox struct {
	Name string // "overlay" or "inplace"
	How  string // how it works here, in a few words: "as root", "compares ctime"
	Why  string // why Choose chose it

	// Layered returns a new view of the root as it is now. What runs in the view
	// leaves the root untouched; several views may be in use at the same time.
	Layered func(context.Context) (Layered, error)

	// InPlace returns the one view that is the root itself.
	InPlace func() InPlace
}

// String says which sandbox it is, how it works here, and why it was chosen.
func (s *Sandbox) String() string { return s.Name + " (" + s.How + "): " + s.Why }

// A View is what a step sees. It is used by one goroutine at a time. Close
// releases all that it holds.
type View interface {
	// Run runs the command and returns what it changed since the last Run, or
	// Apply. The changes can be read until the next call of a method; files that
	// change meanwhile are read again as they are by then. The error is an
	// *ExitError when the command ended with a status other than 0.
	Run(ctx context.Context, c Command) (snapshot.Changes, error)

	// Capture returns the tree at the absolute path as the view shows it, without
	// what the view's steps have already reported: what a SNAPSHOT of a whole path
	// adds to the steps before it. The error wraps fs.ErrNotExist when nothing is
	// there.
	Capture(ctx context.Context, path string) (snapshot.Changes, error)

	// Exists reports whether the view shows anything at the absolute path: what
	// Capture would not fail with fs.ErrNotExist for. It reads no content.
	Exists(ctx context.Context, path string) (bool, error)

	// Open opens a regular file that the view shows at a path, relative to the root,
	// following no link. The error wraps fs.ErrNotExist where there is none.
	Open(path string) (*os.File, error)

	Close() error
}

// A Layered view is the root with changes over it. After a Run that failed it is
// good for Close alone.
type Layered interface {
	View

	// Apply adds a packed snapshot to the view. No later Run reports it. The blob is read
	// from its beginning, and perhaps twice. The
	// error is an *unpack.DirError where a file would replace a directory and at
	// forbids that, and a *merge.ConflictError where the view has other records in a
	// database than the snapshot needs.
	Apply(ctx context.Context, blob io.ReadSeeker, at record.Placement) error

	// ApplyScratch is Apply of the scratch in the snapshot alone: for a step that the
	// root has, and whose scratch it has not.
	ApplyScratch(ctx context.Context, blob io.ReadSeeker) error

	// Exact reports whether commands see all that was applied as it is. Not where a file
	// has an owner that the user namespace has no id for, or is in a directory of another
	// user; that is a warning, too.
	Exact() bool

	// ClearScratch empties the scratch directories. No later Run reports it.
	ClearScratch(ctx context.Context) error

	// Clone returns a second view that begins as this one is now.
	Clone(ctx context.Context) (Layered, error)

	// Tree shows the view to others, until release; nothing else is done with the view
	// meanwhile.
	Tree(ctx context.Context) (t Tree, release func() error, err error)

	// Exec runs the command with the files as its stdin, stdout and stderr, and
	// does not report what it changed; Output, Filter and Dirty are ignored.
	// Where stdin is a terminal, the command is its foreground process group
	// while it runs: Ctrl-C is for the command alone. The error is as for Run,
	// without output. The view is then good for Close alone.
	Exec(ctx context.Context, c Command, stdin, stdout, stderr *os.File) error
}

// A Tree is a view that is read.
type Tree struct {
	// Dir is a directory of this machine that is the view. Links lead out of it: it is read by
	// package os's Root, or the like.
	Dir string

	// Mount returns what a Mount.Tree can be, of what is at a path in the view, where links
	// are followed in the view alone. The error wraps fs.ErrNotExist where nothing is there;
	// any other may be of a kernel that has no such mounts.
	Mount func(path string) (*os.File, error)
}

// An InPlace view is the root itself. What its Run returns with an error is what
// the command did to the root before it failed.
type InPlace interface {
	View

	// Watch prepares for a command that another process runs: ended is called when that
	// has ended, and the next Run starts nothing then and returns what changed between
	// Watch and ended, but for paths, relative to the root, that are hidden, and scratch.
	Watch(ctx context.Context, hidden func(path string) bool) (ended func(context.Context) error, err error)

	// Recover returns what a command did that was killed together with this
	// process, from the reading that Begin got. Of the command only Filter and
	// Mounts count.
	Recover(ctx context.Context, before *tree.Reading, c Command) (snapshot.Changes, error)

	// RemoveSecrets removes what is left at the targets that Begin got.
	RemoveSecrets(targets []string)

	// Stale says that something other than Run changed the root.
	Stale()

	// SetScratch says which names in the scratch directories ("tmp/x") are the
	// layer's: what else is there is the machine's, and left out. Run adds those that
	// come while it runs, also if it fails, and Scratch returns all.
	SetScratch(names []string)
	Scratch() []string

	// Before returns what was at the path, relative to the root, before the last
	// Run: whether something existed, and the entry of a directory. It is valid
	// until the next Run.
	Before(path string) (dir *snapshot.Entry, existed bool)

	// Original writes what stood at the path before the last Run under a name in an open
	// directory, and reports whether it knows that.
	Original(path string, dir int, name string) (known bool, err error)
}

// RegularFile completes what View.Open returns: whatever else is at the path is as nothing.
func RegularFile(f *os.File, err error) (*os.File, error) {
	switch {
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case err != nil:
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s: %w", f.Name(), fs.ErrNotExist)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
