package github

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/clayer/clayer/cache/transfer"
)

// limit is when GitHub wants to hear from us again, after
// https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api:
// retry-after; else, with nothing remaining, the reset; else a minute, and
// twice that each time.
type limit struct {
	mu     sync.Mutex
	until  time.Time
	times  int           // in a row that a limit without a time was hit
	budget time.Duration // what writes may still wait
}

// longestRead is how long a read waits: there is a build to fall back on.
const longestRead = 15 * time.Second

// note reads the limit out of a refusal. It returns false if it is none.
func (l *limit) note(code int, h http.Header, said string, now time.Time) (time.Duration, bool) {
	after := transfer.RetryAfter(h, now)
	spent := h.Get("X-RateLimit-Remaining") == "0"
	secondary := isSecondary(said)
	if code != http.StatusTooManyRequests && (code != http.StatusForbidden || after == 0 && !spent && !secondary) {
		return 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := after
	if wait == 0 && spent {
		// The reset is of the server's clock; ours may be wrong.
		if reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil {
			there := now
			if date, err := http.ParseTime(h.Get("Date")); err == nil {
				there = date
			}
			wait = max(time.Unix(reset, 0).Sub(there), 0) + time.Second
		}
	}
	if wait == 0 {
		wait = time.Minute << min(l.times, 6)
		l.times++
	}
	if until := now.Add(wait); until.After(l.until) {
		l.until = until
	}
	return wait, true
}

// ok notes that a request went through.
func (l *limit) ok() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = 0
}

// wait returns when a request may be sent. The error is a *Error of kind
// Limited if that takes longer than the request may wait.
func (l *limit) wait(ctx context.Context, write bool) error {
	for {
		l.mu.Lock()
		wait := time.Until(l.until)
		if wait <= 0 {
			l.mu.Unlock()
			return nil
		}
		if write && wait > l.budget || !write && wait > longestRead {
			until := l.until
			l.mu.Unlock()
			return &Error{Kind: Limited, Until: until}
		}
		if write {
			l.budget -= wait
		}
		l.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}
