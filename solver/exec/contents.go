package exec

import (
	"context"
	"fmt"
	"io"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/solver/exec/internal/contents"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/scratch"
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
	c, changes, err := b.entries(ctx, it, d, contents.NewReader(io.NewSectionReader(blob, 0, d.Size)), nil)
	if err != nil {
		return err
	}
	return contents.Validate(ctx, c, changes, blob)
}

// unusable says that the snapshot of an item can't be used.
func unusable(it *dag.Item, err error) error {
	return fmt.Errorf("%s: its snapshot can't be used, so it is built again: %w", it.Step.Pos(), err)
}
