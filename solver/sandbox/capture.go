package sandbox

import (
	"context"
	"errors"
	"io/fs"

	"github.com/clayer/clayer/cache/snapshot"
)

// CaptureAll captures paths of a view, as far as they are there.
func CaptureAll(ctx context.Context, v View, paths []string) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, path := range paths {
			changes, err := v.Capture(ctx, path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for e, err := range changes {
				if !yield(e, err) {
					return
				}
			}
		}
	}
}
