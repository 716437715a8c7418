package github

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/clayer/clayer/cache/transfer"
)

// limit is when GitHub takes requests again. Where it does not say, after
// a minute, and twice that each time:
// https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
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
	wait, limited := transfer.RateLimit(code, h, now)
	if !limited && (code != http.StatusForbidden || !isSecondary(said)) {
		return 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
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
