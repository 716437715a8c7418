package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// fate is what an error means for the next attempt.
type fate uint8

const (
	fatal       fate = iota // trying again would bring the same
	transient               // may be better the next time
	unreachable             // the network may not be up yet
)

// fatalError marks an error as fatal.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

func classify(err error) fate {
	var (
		marked   *fatalError
		redirect *RedirectError
		cert     *tls.CertificateVerificationError
		status   *StatusError
		proxy    *ProxyError
		dns      *net.DNSError
		op       *net.OpError
	)
	switch {
	case errors.As(err, &marked), errors.As(err, &redirect), errors.As(err, &cert):
		return fatal
	case errors.As(err, &status):
		return statusFate(status.Code)
	case errors.As(err, &proxy):
		return statusFate(proxy.Code)
	case errors.As(err, &dns):
		return unreachable
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return unreachable
	}
	return transient
}

// Unreachable reports whether an error says that nobody answers: no name, no
// route, connection refused, nothing for longer than the stall limit.
func Unreachable(err error) bool {
	var stall *stallError
	return err != nil && (classify(err) == unreachable || errors.As(err, &stall))
}

func statusFate(code int) fate {
	switch {
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests:
		return transient
	case code >= 500 && code != http.StatusNotImplemented:
		return transient
	}
	return fatal
}

const (
	firstWait = 250 * time.Millisecond
	longWait  = 8 * time.Second

	// reachWait bounds the wait between two tries to reach a host: when the
	// network comes up, nobody should sit out a long one.
	reachWait = 2 * time.Second

	// longestRetryAfter is the most that is waited because a server asks for
	// it. A longer wish is passed on as the error that it is.
	longestRetryAfter = 2 * time.Minute
)

// retry decides whether, and when, an attempt follows a failed one.
type retry struct {
	max      int
	patience time.Duration

	attempts int       // all of them
	failures int       // in a row, without a new byte; unreachable ones don't count while there is patience
	waits    int       // how often in a row it was waited
	since    time.Time // the first of a row of unreachable errors
}

// progressed notes that the last attempt brought something new.
func (r *retry) progressed() { r.failures, r.waits = 0, 0 }

// next returns how long to wait before the attempt that follows err, and
// whether there is one.
func (r *retry) next(err error, now time.Time) (time.Duration, bool) {
	r.attempts++
	kind := classify(err)
	if kind == fatal {
		return 0, false
	}
	wait := backoff(r.waits)
	r.waits++
	if kind == unreachable && r.patience > 0 {
		if r.since.IsZero() {
			r.since = now
		}
		wait = min(wait, reachWait)
		return wait, now.Add(wait).Sub(r.since) <= r.patience
	}
	r.since = time.Time{}
	r.failures++
	if r.failures > r.max {
		return 0, false
	}
	var status *StatusError
	if errors.As(err, &status) && status.RetryAfter > 0 {
		// Jitter on top, so that all who were told the same don't come at once.
		return status.RetryAfter + rand.N(firstWait), status.RetryAfter <= longestRetryAfter
	}
	return wait, true
}

// backoff doubles with n, up to longWait, and is then cut by up to a half at
// random.
func backoff(n int) time.Duration {
	wait := longWait
	if n < 5 { // 250 ms << 5 is longWait
		wait = firstWait << n
	}
	return wait/2 + rand.N(wait/2+1)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
