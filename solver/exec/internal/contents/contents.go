// Package contents checks what the bytes of a snapshot mean, where they are what its
// descriptor says.
package contents

import (
	"context"
	"errors"
	"io"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver/exec/internal/flow"
	"github.com/clayer/clayer/solver/internal/merge"
	"github.com/clayer/clayer/solver/internal/variants"
	"github.com/clayer/clayer/solver/source"
)

// Validate reads all of a snapshot, before anything is done with it that could not be
// rolled back. changes are what c reads of it.
func Validate(ctx context.Context, c *cache.Contents, changes snapshot.Changes, blob io.ReaderAt) error {
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

// Meets returns an error where a snapshot is not what is expected of it.
func Meets(expected source.Expectation, changes snapshot.Changes) error {
	if expected == nil {
		return nil
	}
	for _, err := range expected(changes) {
		if err != nil {
			return err
		}
	}
	return nil
}

// Invalid returns an error of applying as an *flow.InvalidError if the snapshot is to
// blame, and a store had it.
func Invalid(it *dag.Item, err error) (*flow.InvalidError, bool) {
	var contents *cache.InvalidError
	var unsafe *snapshot.UnsafeError
	var unread *UnreadError
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

// An UnreadError is that of a disk that does not give a snapshot back, which it gave
// when it was verified.
type UnreadError struct{ error }

func (e *UnreadError) Unwrap() []error { return []error{e.error, cache.ErrUnread} }

// NewReader returns a reader of a snapshot, whose errors are *UnreadError.
func NewReader(r io.ReadSeeker) io.ReadSeeker { return reader{r} }

type reader struct{ io.ReadSeeker }

func (r reader) Read(p []byte) (int, error) {
	n, err := r.ReadSeeker.Read(p)
	if err != nil && err != io.EOF {
		err = &UnreadError{err}
	}
	return n, err
}
