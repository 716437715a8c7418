package cache

import (
	"context"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
)

// ending is a store whose Put is given up.
type ending struct {
	filler
	end func()
}

func (e ending) Fetch(context.Context, Descriptor, *Blob) error { return ErrNotCached }
func (e ending) Put(ctx context.Context, _ Descriptor, _ *Blob) error {
	e.end()
	return context.Cause(ctx)
}

// What ends a fetch is no fault of the nearer store, into which the blob is being copied.
func TestFetchThatIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	var b Blob
	defer b.Close()
	tier := Tiered(func(store string, err error) { t.Errorf("warned of %s: %v", store, err) },
		ending{end: func() { cancel(errors.New("another step failed")) }},
		filler{fill: func(w Writer) error { _, err := w.WriteAt([]byte("content"), 0); return err }})
	if err := tier.Fetch(ctx, Descriptor{Digest: digest.FromString("content"), Size: 7}, &b); err != nil {
		t.Error(err)
	}
}
