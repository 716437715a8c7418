package transfer

import (
	"cmp"
	"context"
	"errors"
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
	host   string // that is waited for

	mu    sync.Mutex // a request's body is read by the transport's goroutine
	timer *time.Timer
	limit time.Duration // of what is waited for
}

// stallError says that nothing arrived within a limit.
type stallError struct{ limit time.Duration }

func (e *stallError) Error() string { return fmt.Sprintf("nothing arrived for %v", e.limit) }

// The floor of speed: a transfer that moves fewer bytes is broken off, although
// it never stalls. It is measured over floorTime at a time.
const (
	floorRate = 1000 // bytes a second
	floorTime = 30 * time.Second
)

// slowError says that a transfer was slower than the floor.
type slowError struct {
	again bool // on a new connection too
}

func (*slowError) Error() string {
	return fmt.Sprintf("slower than %d bytes a second for %v", floorRate, floorTime)
}

// A pace measures a transfer against the floor: over all of its ranges, which
// share the line, and only while one of them waits for the network.
type pace struct {
	mu      sync.Mutex
	waiting int       // those that wait now
	since   time.Time // when the first of them began, or time was last added
	waited  time.Duration
	n       int64
	slow    int // how often in a row floorTime went by too slowly
}

func (p *pace) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == 0 {
		p.since = time.Now()
	}
	p.waiting++
}

// end notes the bytes that were waited for. It returns a *slowError to one of
// those that wait when floorTime went by too slowly.
func (p *pace) end(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.waiting--
	p.waited += now.Sub(p.since)
	p.since = now
	p.n += int64(n)
	if p.waited < floorTime {
		return nil
	}
	enough := float64(p.n) >= floorRate*p.waited.Seconds()
	p.waited, p.n = 0, 0
	if enough {
		p.slow = 0
		return nil
	}
	p.slow++
	return &slowError{again: p.slow > 1}
}

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

// reason returns why the body of an answer ended, where err may be "context
// canceled", as a *fault.
func (w *watch) reason(err error) error {
	var known *fault
	if errors.As(err, &known) {
		return err
	}
	if w.ctx.Err() != nil {
		return ended(w.ctx, w.host, err)
	}
	return &fault{err: err, fate: cut, host: w.host}
}

// ended returns why the context of an attempt ended.
func ended(ctx context.Context, host string, err error) error {
	f := &fault{err: cmp.Or(context.Cause(ctx), err), fate: final, host: host}
	switch f.err.(type) {
	case *stallError:
		f.fate = silent
	case *slowError:
		f.fate = slow
	}
	return f
}

// reader returns r with each Read watched, and its speed measured.
func (w *watch) reader(r io.Reader, limit time.Duration, p *pace) io.Reader {
	return &watchedReader{r, w, limit, p}
}

type watchedReader struct {
	r     io.Reader
	w     *watch
	limit time.Duration
	pace  *pace
}

func (r *watchedReader) Read(p []byte) (int, error) {
	r.w.expect(r.limit)
	r.pace.begin()
	n, err := r.r.Read(p)
	slow := r.pace.end(n)
	r.w.relax()
	if err == nil && slow != nil {
		r.w.cancel(slow)
		err = slow
	}
	return n, err
}
