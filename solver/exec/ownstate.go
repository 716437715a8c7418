package exec

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/source"
)

// A stateFault says that a RUN did something to the state of clayer, or to the
// directories above it, that no snapshot can hold.
type stateFault struct{ source.Fault }

// Unwrap returns the fault.
func (f *stateFault) Unwrap() error { return &f.Fault }

// sparing hands on what a RUN changed, and ends with an error where that
// replaces or deletes a directory that the state of clayer is in, at place: every root has
// its state there, so such a snapshot could be applied to none.
func (b *builder) sparing(place string, changes snapshot.Changes) snapshot.Changes {
	own, err := filepath.Rel(b.root.Dir(), place)
	if err != nil || !filepath.IsLocal(own) {
		return changes
	}
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range changes {
			if err == nil && e.Kind != snapshot.Dir && e.Kind != snapshot.Opaque && strings.HasPrefix(own, e.Path+"/") {
				err = &stateFault{source.Fault{
					Message: "it replaces /" + e.Path + ", which holds the state of clayer (/" + own + ")",
					Hint:    "leave /" + e.Path + " a directory: move what is in it, or mount another file system there before clayer runs",
				}}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// resettle makes sure, after a RUN in place, that the next command finds the state.
func (b *builder) resettle(place string) error {
	to, err := b.lock.Resettle()
	at := b.inRoot(place)
	switch {
	case errors.Is(err, rootfs.ErrStateGone):
		return &stateFault{source.Fault{
			Message: "it removed the state of clayer, " + at,
			Hint:    "what is applied here can no longer be undone; leave that directory alone",
			Err:     err,
		}}
	case errors.Is(err, rootfs.ErrStateCopied):
		return &stateFault{source.Fault{
			Message: "it replaced the state of clayer, " + at + ", by a copy of it, " + b.inRoot(to),
			Hint:    "that copy is used from here on; leave the state alone: move what is beside it",
			Err:     err,
		}}
	case errors.Is(err, rootfs.ErrStateCovered):
		return &stateFault{source.Fault{
			Message: "it mounted something over the state of clayer, " + at,
			Hint:    "unmount it: the next command looks for the state there",
			Err:     err,
		}}
	case err != nil:
		return err
	case to != "":
		return &stateFault{source.Fault{
			Message: "it moved the state of clayer, " + at + ", to " + b.inRoot(to) + "; it is back in its place",
			Hint:    "leave that directory alone: move what is beside it",
		}}
	}
	return nil
}

// inRoot returns how a path of the machine is called in the root.
func (b *builder) inRoot(path string) string {
	if rel, err := filepath.Rel(b.root.Dir(), path); err == nil && filepath.IsLocal(rel) {
		return "/" + rel
	}
	return path
}

// unrecorded is for a RUN in place of which no snapshot can be made, and whose changes
// clayer should not undo: moved files would be deleted where they are now.
func (b *builder) unrecorded(err error) error {
	b.failed = nil
	b.Report.Warnf("nothing of it is stored or recorded; what it did to the root stays, also with undo")
	return errors.Join(err, b.forgetRun())
}
