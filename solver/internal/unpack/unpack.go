// Package unpack applies streams of entries to a directory: a root, or the view of
// one. It can announce each change before it is done, and save what it replaces,
// so that package rootfs can roll it back.
package unpack

import (
	"fmt"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/metadata"
	"github.com/clayer/clayer/solver/internal/record"
)

// Options are how to unpack. The zero value is the default.
type Options struct {
	Sys inroot.Sys // by which the directory is changed

	Placement record.Placement
}

// A Recording is where an apply announces its changes, and saves what they replace.
type Recording struct {
	Dir      record.Dir // open
	Journal  *record.Journal
	Preserve map[string]bool // paths that the user changed, which stay as they are

	// PreserveRecords has the keys of records that the user changed, by the path of their
	// database.
	PreserveRecords map[string][]string

	Placement record.Placement

	// Lower is the root that this one is layered over; "" for none. A directory that is
	// only made since something is put into it is made as it is there.
	Lower string

	// Hidden are names of Lower that steps before have deleted, as record.Event has them.
	Hidden []string

	// Verified is closed when the stream is known to be what it should be: nothing is
	// done to the root before. nil: it is known.
	Verified <-chan struct{}
}

// Result is what an apply did.
type Result struct {
	Entries int
	Bytes   int64 // of file content
	Scratch bool  // the step's snapshot holds scratch, which was left out

	// Problems are the entries that could not be made, while the rest was: an
	// immutable file, a read-only file system or another mount underneath.
	Problems []Problem

	// Preserved are the paths that the step would have changed, and that stay as the
	// user has them: in a database, some of its records.
	Preserved []string

	// Unprivileged counts owners, attributes and device nodes that a user
	// without the privilege cannot set or make: as tar does for a user, they
	// are left out without a word.
	Unprivileged int

	// Foreign are the owners among them that make a difference: root's files are this
	// user's own where it is not root.
	Foreign metadata.Foreign
}

// A Problem is an entry that could not be made.
type Problem struct {
	Path string // relative to the root
	Err  error
}

// A DirError says that a file would replace a directory, which its Placement
// forbids. Nothing more is applied then.
type DirError struct {
	Path string // relative to the root
}

func (e *DirError) Error() string {
	return fmt.Sprintf("%q is a directory, which a file would replace", e.Path)
}

// unsafe is an error about an entry that no honest stream has.
func unsafe(path, reason string) error { return &snapshot.UnsafeError{Path: path, Reason: reason} }

// count counts an entry that was made, notes one that could not be, and returns the
// error after which none can.
func (r *Result) count(e *snapshot.Entry, err error) error {
	switch {
	case err == nil:
		r.Entries++
	case inroot.IsHard(err):
		return fmt.Errorf("%q: %w", e.Path, err)
	default:
		r.Problems = append(r.Problems, Problem{e.Path, err})
	}
	return nil
}
