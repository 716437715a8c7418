package git

import (
	"context"
	"sync"
	"time"
)

// A rate bounds how often something happens in a time.
type rate struct {
	n  int
	in time.Duration

	mu   sync.Mutex
	last []time.Time // of the last n
}

func newRate(n int, in time.Duration) *rate { return &rate{n: n, in: in} }

// wait waits until it may happen once more.
func (r *rate) wait(ctx context.Context) error {
	r.mu.Lock()
	now := time.Now()
	at := now
	if len(r.last) == r.n {
		if free := r.last[0].Add(r.in); free.After(now) {
			at = free
		}
		r.last = r.last[1:]
	}
	r.last = append(r.last, at)
	r.mu.Unlock()
	timer := time.NewTimer(at.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
