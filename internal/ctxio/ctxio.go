// Package ctxio reads until a context ends.
package ctxio

import (
	"context"
	"io"
)

// Reader returns a reader of r that ends with the cause of ctx when that does: a
// file of many gigabytes is not hashed to its end when it is no longer needed.
func Reader(ctx context.Context, r io.Reader) io.Reader { return &reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (c *reader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
