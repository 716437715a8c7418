package transfer

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// A watch breaks off one attempt when nothing arrives for too long. It runs
// only while something is waited for: the time that a slow disk takes is not
// the server's fault.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex // a request's body is read by the transport's goroutine
	timer *time.Timer
	limit time.Duration // of what is waited for
}

// stallError says that nothing arrived within a limit.
type stallError struct{ limit time.Duration }

func (e *stallError) Error() string { return fmt.Sprintf("nothing arrived for %v", e.limit) }

// newWatch returns a context for the attempt, and its watch. The caller ends
// the watch.
func newWatch(ctx context.Context) (context.Context, *watch) {
	w := &watch{}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w.ctx, w
}

// expect starts to wait.
func (w *watch) expect(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil && w.limit == limit {
		w.timer.Reset(limit)
		return
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	w.limit = limit
	w.timer = time.AfterFunc(limit, func() { w.cancel(&stallError{limit}) })
}

// relax ends the waiting: something has arrived.
func (w *watch) relax() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.cancel(nil)
}

// reason returns why the attempt broke off, where err is "context canceled".
func (w *watch) reason(err error) error {
	if stall, ok := context.Cause(w.ctx).(*stallError); ok {
		return stall
	}
	return err
}

// reader returns r with each Read watched.
func (w *watch) reader(r io.Reader, limit time.Duration) io.Reader {
	return &watchedReader{r, w, limit}
}

type watchedReader struct {
	r     io.Reader
	w     *watch
	limit time.Duration
}

func (r *watchedReader) Read(p []byte) (int, error) {
	r.w.expect(r.limit)
	n, err := r.r.Read(p)
	r.w.relax()
	return n, err
}
