package cache

import (
	"context"
	"fmt"
	"io"
)

// A Reader reads a blob from its beginning, and waits for what is not there yet. What is
// read must have no effect before Verified. Its methods are safe for concurrent use, but
// for Read. The caller closes it.
type Reader struct {
	b        *Blob
	ctx      context.Context
	cancel   context.CancelCauseFunc
	verified chan struct{}
	at       int64
	pass     int // of the blob, in which it read; 0: it read nothing. Guarded by b.mu
}

// Reader returns a reader of the blob, in any state.
func (b *Blob) Reader(ctx context.Context) *Reader {
	r := &Reader{b: b, verified: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	go func() {
		if err := r.Wait(); err != nil {
			r.cancel(err)
		} else {
			close(r.verified)
		}
	}()
	return r
}

// Context returns a context that ends when the blob, or what was read of it, is aborted,
// with an error that wraps ErrAborted as its cause.
func (r *Reader) Context() context.Context { return r.ctx }

// Verified returns a channel that is closed when all that was read, and will be, is
// verified.
func (r *Reader) Verified() <-chan struct{} { return r.verified }

// Wait waits until it is known whether what was read is the blob: nil then, or an error
// that wraps ErrAborted, or the cause of the context. An error of reading, or of what was
// read, means nothing before.
func (r *Reader) Wait() error {
	for {
		r.b.mu.Lock()
		state, err, news := r.b.state, r.aborted(), r.b.news()
		r.b.mu.Unlock()
		switch {
		case err != nil:
			return err
		case state == Verified:
			return nil
		}
		select {
		case <-news:
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
}

// Close ends the reader, and its context.
func (r *Reader) Close() error {
	r.cancel(context.Canceled)
	return nil
}

// aborted returns why nothing more is read. The caller holds b.mu.
func (r *Reader) aborted() error {
	if r.b.err != nil {
		return r.b.err
	}
	if r.pass != 0 && r.pass != r.b.pass {
		return fmt.Errorf("%w: it started over", ErrAborted)
	}
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	b := r.b
	for {
		b.mu.Lock()
		err, started, have, size, file, news := r.aborted(), b.state != Empty, b.have, b.size, b.file, b.news()
		if err == nil && have > r.at {
			r.pass = b.pass
		}
		b.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case started && r.at == size:
			return 0, io.EOF
		case have > r.at:
			n, err := file.ReadAt(p[:min(int64(len(p)), have-r.at)], r.at)
			r.at += int64(n)
			if n > 0 {
				return n, nil
			}
			if err != nil {
				return 0, fmt.Errorf("%w: %w", ErrAborted, err)
			}
		}
		select {
		case <-news:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
}
