// Package rate bounds how often something happens in a time.
package rate

import (
	"context"
	"sync"
	"time"
)

// A Limit bounds how often something happens in a time. It is safe for concurrent use.
type Limit struct {
	n  int
	in time.Duration

	mu   sync.Mutex
	last []time.Time // of the last n
}

// New returns the limit of n times in a time.
func New(n int, in time.Duration) *Limit { return &Limit{n: n, in: in} }

// Wait waits until it may happen once more.
func (r *Limit) Wait(ctx context.Context) error {
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
