package variants

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/source"
)

// failing is a store that fails to fetch.
type failing struct {
	cache.Store
	err error
}

func (failing) Name() string { return "failing" }

func (f failing) Fetch(context.Context, cache.Descriptor, *cache.Blob) error { return f.err }

func fetching(errs ...error) error {
	var stores []cache.Store
	for _, err := range errs {
		stores = append(stores, failing{err: err})
	}
	return cache.Tiered(func(string, error) {}, stores...).Fetch(context.Background(), cache.Descriptor{}, new(cache.Blob))
}

// What could not be read may be good: only what is gone, or is no snapshot of its step
// here, is replaced.
func TestUseless(t *testing.T) {
	outage := errors.New("503")
	denied := &fs.PathError{Op: "open", Path: "/p", Err: syscall.EACCES}
	corrupt := &cache.CorruptError{Want: digest.FromString("a"), Got: digest.FromString("b")}
	tests := map[string]struct {
		err  error
		want bool
	}{
		"no store has it":                   {fetching(cache.ErrNotCached, cache.ErrNotCached), true},
		"it is corrupt":                     {fetching(corrupt, cache.ErrNotCached), true},
		"it contradicts its step":           {&cache.InvalidError{Err: &source.UnexpectedError{Err: errors.New("other")}}, true},
		"it does not fit the root":          {&source.UnexpectedError{Err: errors.New("other")}, true},
		"it would replace a directory":      {source.ReplacesDir("opt", nil), true},
		"it is unsafe":                      {&snapshot.UnsafeError{Path: "p"}, true},
		"a store fails":                     {fetching(outage), false},
		"one store fails":                   {fetching(cache.ErrNotCached, outage), false},
		"a store denies it":                 {fetching(denied), false},
		"the disk fails while it is read":   {&cache.InvalidError{Err: fmt.Errorf("%w: %w", cache.ErrUnread, syscall.EIO)}, false},
		"it ended while it was read":        {&cache.InvalidError{Err: cache.ErrAborted}, false},
		"what is in the root was not read":  {denied, false},
		"the solve was interrupted":         {context.Canceled, false},
		"the root lacks what another needs": {&UnmetError{Lacks: "needs x"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var l Lost
			l.Note(key.Key{}, cache.Found{Descriptor: cache.Descriptor{Digest: digest.FromString("a")}}, tt.err)
			if got := len(l.useless) > 0; got != tt.want {
				t.Errorf("%v: replaced %t, want %t", tt.err, got, tt.want)
			}
		})
	}
}
