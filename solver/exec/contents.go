package exec

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver/exec/internal/flow"
	"github.com/clayer/clayer/solver/internal/merge"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/scratch"
	"github.com/clayer/clayer/solver/internal/variants"
)

// The bytes of a snapshot are what its descriptor says when they were verified.
// What the bytes mean is checked where they are read: that they are a snapshot,
// as large as the descriptor says, which puts nothing into clayer's own directory,
// and that of a COPY, FETCH or WORKDIR no other than its key names. One that is not
// is a miss.

// entries reads the snapshot of an item that a store has, for a root with the names of at;
// nil is for one that is not known yet.
func (b *builder) entries(ctx context.Context, it *dag.Item, d cache.Descriptor, blob io.Reader, at *names.View) (*cache.Contents, snapshot.Changes, error) {
	c := cache.NewContents(d)
	expected, err := b.Steps.Expected(ctx, it.Step, at, b.findsRoot(it.Step))
	if err != nil {
		return nil, nil, err
	}
	changes := scratch.Bound(it.Step, b.ownState().Guarded(snapshot.ReadUnvalidated(blob)))
	if expected != nil {
		changes = expected(changes)
	}
	return c, c.Entries(changes), nil
}

// validate reads all of a snapshot, before anything is done with it that could not be
// rolled back.
func (b *builder) validate(ctx context.Context, it *dag.Item, d cache.Descriptor, blob io.ReaderAt) error {
	c, changes, err := b.entries(ctx, it, d, blobReader{io.NewSectionReader(blob, 0, d.Size)}, nil)
	if err != nil {
		return err
	}
	for e, err := range snapshot.Validate(changes) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = readContent(e)
		}
		if err != nil {
			return err
		}
		if e.Release != nil {
			e.Release()
		}
	}
	return c.CheckTable(blob)
}

// readContent reads the content of a file that is not in memory, for those who
// compare it.
func readContent(e *snapshot.Entry) error {
	if e.Kind != snapshot.File || e.Content != nil {
		return nil
	}
	f, err := e.Open()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}

// invalid returns an error of applying as an *flow.InvalidError if the snapshot is to
// blame, and a store had it.
func invalid(it *dag.Item, err error) (*flow.InvalidError, bool) {
	var contents *cache.InvalidError
	var unsafe *snapshot.UnsafeError
	var unread *unreadError
	var unmet *variants.UnmetError
	var records *merge.ConflictError
	if errors.As(err, &records) {
		err = &variants.UnmetError{Lacks: "needs " + records.Need()}
	}
	if it.State != dag.Cached || !errors.As(err, &contents) && !errors.As(err, &unsafe) && !errors.As(err, &unread) && !errors.As(err, &unmet) {
		return nil, false
	}
	return &flow.InvalidError{Item: it, Err: err}, true
}

// An unreadError is that of a disk that does not give a snapshot back, which it gave
// when it was verified.
type unreadError struct{ error }

func (e *unreadError) Unwrap() []error { return []error{e.error, cache.ErrUnread} }

// blobReader reads a snapshot; its errors are *unreadError.
type blobReader struct{ io.ReadSeeker }

func (r blobReader) Read(p []byte) (int, error) {
	n, err := r.ReadSeeker.Read(p)
	if err != nil && err != io.EOF {
		err = &unreadError{err}
	}
	return n, err
}

// unusable says that the snapshot of an item can't be used.
func unusable(it *dag.Item, err error) error {
	return fmt.Errorf("%s: its snapshot can't be used, so it is built again: %w", it.Step.Pos(), err)
}
