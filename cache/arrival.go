package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
)

// ErrLost says that what was read of an Arrival is not, or not surely, the blob.
var ErrLost = errors.New("it did not arrive whole")

// An Arrival is a blob that is read while it is brought, and while it is verified:
// OpenVerified, and the store, find it in their context. What is read from it must
// have no effect before Sound. Its methods are safe for concurrent use, and those
// that tell it something do nothing where it is nil.
type Arrival struct {
	size  int64
	began chan struct{}
	whole chan struct{}
	sound chan struct{}

	mu    sync.Mutex
	news  chan struct{} // closed, and made anew, when anything changed
	from  *os.File
	have  int64           // bytes from the beginning that are there
	ahead map[int64]int64 // what is there behind a gap: where it begins, and ends
	read  bool            // a Reader has read some of it
	times int             // how often it began anew
	err   error
}

// NewArrival returns an Arrival of a blob of that size, in bytes.
func NewArrival(size int64) *Arrival {
	return &Arrival{size: size, began: make(chan struct{}), whole: make(chan struct{}), sound: make(chan struct{}), news: make(chan struct{}), ahead: make(map[int64]int64)}
}

type arrivalKey struct{}

// WithArrival returns a context in which a blob that is opened is told of.
func WithArrival(ctx context.Context, a *Arrival) context.Context {
	return context.WithValue(ctx, arrivalKey{}, a)
}

// ArrivalOf returns what is told of a blob that is opened in the context; nil if
// nothing is.
func ArrivalOf(ctx context.Context) *Arrival {
	a, _ := ctx.Value(arrivalKey{}).(*Arrival)
	return a
}

// From tells where the blob will be, and that nothing of it is there yet. What was
// read from another place is lost.
func (a *Arrival) From(f *os.File) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.from == f {
		return
	}
	if a.from == nil {
		close(a.began)
	}
	a.from = f
	a.restart()
}

// Restart tells that the blob comes anew from its beginning.
func (a *Arrival) Restart() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.restart()
}

func (a *Arrival) restart() {
	a.have = 0
	a.times++
	clear(a.ahead)
	if a.read && a.err == nil {
		a.err = fmt.Errorf("%w: it is brought anew", ErrLost)
	}
	a.tell()
}

// Came tells that n bytes from an offset on are there.
func (a *Arrival) Came(off, n int64) {
	if a == nil || n <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if off > a.have {
		a.ahead[off] = max(a.ahead[off], off+n)
		// What continues another piece becomes one with it by and by: pieces come
		// in a few runs, each in order.
		for at, end := range a.ahead {
			if end == off {
				a.ahead[at] = off + n
				delete(a.ahead, off)
				break
			}
		}
		return
	}
	a.have = max(a.have, off+n)
	for again := true; again; {
		again = false
		for at, end := range a.ahead {
			if at <= a.have {
				a.have, again = max(a.have, end), true
				delete(a.ahead, at)
			}
		}
	}
	a.tell()
}

// replaces tells, before it is done, that the bytes between two offsets are written.
// If some of them are there, they may have been read, and hashed: whatever is verified
// afterwards is something else.
func (a *Arrival) replaces(off, end int64) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	again := off < a.have
	for at, to := range a.ahead {
		again = again || at < end && off < to
	}
	if again {
		a.restart()
	}
}

// A Part is where a part of a blob is written to; it tells an Arrival of it.
type Part struct {
	f    *os.File
	from int64
	to   *Arrival
}

// Part returns f from an offset on, as a place for what is brought.
func (a *Arrival) Part(f *os.File, from int64) Part { return Part{f, from, a} }

// WriteAt implements io.WriterAt. Where something is already, the blob comes anew.
func (p Part) WriteAt(b []byte, off int64) (int, error) {
	p.to.replaces(p.from+off, p.from+off+int64(len(b)))
	n, err := p.f.WriteAt(b, p.from+off)
	p.to.Came(p.from+off, int64(n))
	return n, err
}

// Truncate drops what is behind n bytes of the part: it is brought anew.
func (p Part) Truncate(n int64) error {
	p.to.replaces(p.from+n, math.MaxInt64)
	return p.f.Truncate(p.from + n)
}

// Fail tells that the blob does not come.
func (a *Arrival) Fail(err error) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	a.tell()
}

// pass tells that the blob is what its descriptor says.
func (a *Arrival) pass() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.sound:
	default:
		if a.err == nil { // what was read is what was verified
			close(a.sound)
		}
	}
}

func (a *Arrival) tell() {
	if a.have >= a.size && a.from != nil && a.err == nil {
		select {
		case <-a.whole:
		default:
			close(a.whole)
		}
	}
	close(a.news)
	a.news = make(chan struct{})
}

// Began is closed when there is something to read, or will be.
func (a *Arrival) Began() <-chan struct{} { return a.began }

// Whole is closed when all bytes are there, though it may turn out that they have
// to come anew.
func (a *Arrival) Whole() <-chan struct{} { return a.whole }

// Sound is closed when all that was read, and will be, is verified.
func (a *Arrival) Sound() <-chan struct{} { return a.sound }

// Verdict waits until it is known whether what was read is the blob: nil then, or an
// error that wraps ErrLost. An error of reading it means nothing before.
func (a *Arrival) Verdict(ctx context.Context) error {
	for {
		a.mu.Lock()
		news, err := a.news, a.err
		a.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-a.sound:
			return nil
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Context returns a context that ends when the blob is lost, with an error that
// wraps ErrLost as its cause.
func (a *Arrival) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		if err := a.Verdict(ctx); err != nil {
			cancel(err)
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// Reader reads the blob from its beginning, waiting for what is not there yet.
func (a *Arrival) Reader(ctx context.Context) io.Reader { return &arriving{a: a, ctx: ctx} }

// hash hashes the blob while it comes. What it returns reports whether that is the
// blob, and is what is there now: it has not begun anew since.
func (a *Arrival) hash(ctx context.Context, d Descriptor) (same func() bool) {
	select {
	case <-a.began:
	case <-ctx.Done():
		return func() bool { return false }
	}
	a.mu.Lock()
	times := a.times
	a.mu.Unlock()
	err := Check(ctx, io.Discard, &arriving{a: a, ctx: ctx, times: times}, d)
	return func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return err == nil && a.times == times
	}
}

type arriving struct {
	a     *Arrival
	ctx   context.Context
	at    int64
	times int // of hash: what is read must have come since; 0: of a Reader
}

func (r *arriving) Read(p []byte) (int, error) {
	a := r.a
	for {
		a.mu.Lock()
		err, have, from, news := a.err, a.have, a.from, a.news
		if r.times == 0 {
			a.read = a.read || have > r.at
		} else if r.times != a.times {
			err = ErrLost
		}
		a.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case r.at >= a.size:
			return 0, io.EOF
		case have > r.at:
			n, err := from.ReadAt(p[:min(int64(len(p)), min(have, a.size)-r.at)], r.at)
			r.at += int64(n)
			if n > 0 {
				return n, nil
			}
			if err != nil {
				return 0, fmt.Errorf("%w: %w", ErrLost, err)
			}
		}
		select {
		case <-news:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
}
