// Package ownstate keeps the state of clayer, which is in the root, apart from what steps
// do to that: no snapshot has anything of it, and no RUN takes it away unnoticed.
package ownstate

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/pathname"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/source"
)

// A Place is where the state of a root is. Both are paths of the machine.
type Place struct{ Root, State string }

// A Fault says that a RUN did something to the state of clayer, or to the directories
// above it, that no snapshot can hold.
type Fault struct{ source.Fault }

// Unwrap returns the fault.
func (f *Fault) Unwrap() error { return &f.Fault }

// rel returns the path of the state in the root; ok is false where it is elsewhere.
func (p Place) rel() (own string, ok bool) {
	own, err := filepath.Rel(p.Root, p.State)
	return own, err == nil && filepath.IsLocal(own)
}

// Guarded hands on the entries of a snapshot, and ends with an error where one is in the
// state, which says what is applied.
func (p Place) Guarded(changes snapshot.Changes) snapshot.Changes {
	own, ok := p.rel()
	if !ok {
		return changes
	}
	return checked(changes, func(e *snapshot.Entry) error {
		if pathname.Under(e.Path, own) {
			return &snapshot.UnsafeError{Path: e.Path, Reason: "in clayer's own directory"}
		}
		return nil
	})
}

// Sparing hands on what a RUN changed, and ends with an error where that replaces or
// deletes a directory that the state is in: every root has its state there, so such a
// snapshot could be applied to none.
func (p Place) Sparing(changes snapshot.Changes) snapshot.Changes {
	own, ok := p.rel()
	if !ok {
		return changes
	}
	return checked(changes, func(e *snapshot.Entry) error {
		if e.Kind == snapshot.Dir || e.Kind == snapshot.Opaque || !strings.HasPrefix(own, e.Path+"/") {
			return nil
		}
		return &Fault{source.Fault{
			Message: "it replaces /" + e.Path + ", which holds the state of clayer (/" + own + ")",
			Hint:    "leave /" + e.Path + " a directory: move what is in it, or mount another file system there before clayer runs",
		}}
	})
}

// checked hands on changes up to the first of which check returns an error.
func checked(changes snapshot.Changes, check func(*snapshot.Entry) error) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range changes {
			if err == nil {
				err = check(e)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Resettled says what became of the state where it was looked for after a RUN in place; to
// and err are what Lock.Resettle returned.
func (p Place) Resettled(to string, err error) error {
	at := p.inRoot(p.State)
	switch {
	case errors.Is(err, rootfs.ErrStateGone):
		return &Fault{source.Fault{
			Message: "it removed the state of clayer, " + at,
			Hint:    "what is applied here can no longer be undone; leave that directory alone",
			Err:     err,
		}}
	case errors.Is(err, rootfs.ErrStateCopied):
		return &Fault{source.Fault{
			Message: "it replaced the state of clayer, " + at + ", by a copy of it, " + p.inRoot(to),
			Hint:    "that copy is used from here on; leave the state alone: move what is beside it",
			Err:     err,
		}}
	case errors.Is(err, rootfs.ErrStateCovered):
		return &Fault{source.Fault{
			Message: "it mounted something over the state of clayer, " + at,
			Hint:    "unmount it: the next command looks for the state there",
			Err:     err,
		}}
	case err != nil:
		return err
	case to != "":
		return &Fault{source.Fault{
			Message: "it moved the state of clayer, " + at + ", to " + p.inRoot(to) + "; it is back in its place",
			Hint:    "leave that directory alone: move what is beside it",
		}}
	}
	return nil
}

// inRoot returns how a path of the machine is called in the root.
func (p Place) inRoot(path string) string {
	if rel, err := filepath.Rel(p.Root, path); err == nil && filepath.IsLocal(rel) {
		return "/" + rel
	}
	return path
}
