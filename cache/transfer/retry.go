package transfer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// A fate is what an error means for the next attempt.
type fate uint8

const (
	final     fate = iota // another try gets the same answer for this URL
	hostFinal             // ... for all of the host's: no such name, a bad certificate, given up before
	refused               // nothing listens there; a service may be restarting, for a moment
	starting              // nothing listens there, on this machine or its network: a service may be about to start
	unreached             // no route, no name server, no answer to a connect: the network may not be up yet
	silent                // connected, and then no byte for the stall limit
	slow                  // slower than the floor
	broken                // the exchange ended without an answer
	cut                   // the answer ended in its midst
	busy                  // an answer that asks to come again: 408, 429, 5xx
)

// mostTries bounds the tries in a row, after the first, that return nothing new,
// besides Options.Retries. What is not listed has that bound alone.
var mostTries = map[fate]int{refused: 2, silent: 2, slow: 1, cut: 2}

// mostUnheard bounds them where a host closes connections and never answered
// one: firewalls that look at names do so.
const mostUnheard = 3

// A fault is an error whose meaning for the next attempt is known.
type fault struct {
	err  error
	fate fate
	host string // that failed; "" where it is not about one
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// Fatal marks an error as one that another try would return again.
func Fatal(err error) error { return &fault{err: err, fate: final} }

// Transient marks an error as one that another try may not return. Errors that
// this package did not make are fatal without it.
func Transient(err error) error { return &fault{err: err, fate: broken} }

// IsFatal reports whether an error was marked by Fatal, or is of a request that
// no host got.
func IsFatal(err error) bool {
	var f *fault
	return errors.As(err, &f) && (f.fate == final || f.fate == hostFinal)
}

// Unreachable reports whether an error says that no answer is to be had from a
// host: no such name, a bad certificate, no route, connection refused, silence,
// or anything for which it was given up.
func Unreachable(err error) bool {
	switch classify(err) {
	case hostFinal, refused, starting, unreached, silent:
		return true
	}
	return false
}

// Retryable reports whether another try may not return an error again.
func Retryable(err error) bool {
	kind := classify(err)
	return kind != final && kind != hostFinal
}

// classify returns the fate of an error; what is not known is final.
func classify(err error) fate {
	var f *fault
	var status *StatusError
	switch {
	case errors.As(err, &f):
		return f.fate
	case errors.As(err, &status):
		if status.Limited {
			return busy
		}
		return statusFate(status.Code)
	}
	return final
}

func statusFate(code int) fate {
	if Busy(code) {
		return busy
	}
	return final
}

// Busy reports whether a status asks to come again.
func Busy(code int) bool {
	return code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || code >= 500 && code != http.StatusNotImplemented
}

const (
	firstWait = 250 * time.Millisecond
	longWait  = 8 * time.Second

	// reachWait bounds the wait between two tries to reach a host: when the
	// network comes up, no caller should sit out a long one.
	reachWait = 2 * time.Second

	// reachTime is for how long a host that cannot be reached is tried where
	// the network is up.
	reachTime = 15 * time.Second

	// startTime is for how long a service is waited for that may be about to
	// start: a registry in a container takes 3 to 5 s, some of which have passed.
	// startWait bounds the wait between two tries.
	startTime = 4 * time.Second
	startWait = time.Second

	// longestRetryAfter is the most that is waited because a server asks for
	// it. A longer wish is passed on as the error that it is.
	longestRetryAfter = 2 * time.Minute
)

// A retry decides whether, and when, an attempt follows a failed one. It is the
// one policy of all requests: docs/network.md.
type retry struct {
	net      *Network
	max      int           // as Options.Retries
	patience time.Duration // for a host that is not reached; 0 means the network's

	attempts int       // all of them
	failures int       // in a row that returned nothing new
	waits    int       // how often in a row it was waited
	away     time.Time // the first of a row of attempts that reached no host
	start    time.Time // the first of a row of attempts at a service that may be starting
	signed   bool      // a fresh address was asked for

	since time.Time     // of the last progress
	n     int64         // bytes since
	own   time.Duration // what the reader took of the time since
}

func (c *Client) newRetry(patience time.Duration) *retry {
	return &retry{net: c.network, max: c.retries, patience: patience, since: time.Now()}
}

// progress notes the bytes that arrived in the last attempt, and how long the
// writer took for them. An attempt counts as a new start only if it was faster
// than the floor: a server that gives a byte at a time is not followed for ever.
func (r *retry) progress(n int64, own time.Duration) {
	r.n += n
	r.own += own
	now := time.Now()
	if r.n > 0 && float64(r.n) >= floorRate*(now.Sub(r.since)-r.own).Seconds() {
		r.failures, r.waits = 0, 0
		r.since, r.n, r.own = now, 0, 0
	}
}

// next waits until the attempt that follows err may be made, and returns nil. It
// returns err if there is none, and the cause of ctx when that ends.
func (r *retry) next(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.attempts++
	now := time.Now()
	kind := classify(err)
	var at *fault
	host := ""
	if errors.As(err, &at) {
		host = at.host
	}
	var status *StatusError
	errors.As(err, &status)
	switch {
	case kind == final && status != nil && status.expired() && !r.signed && r.max >= 0:
		// The address that the redirect led to was signed, and had expired; the
		// next attempt asks for a fresh one.
		r.signed = true
		return nil
	case kind == final, kind == hostFinal:
		return err
	}
	// All ranges of a file share the line, and one of them got this error before.
	if slow := (*slowError)(nil); errors.As(err, &slow) && slow.again {
		return err
	}
	switch kind {
	case refused, starting, unreached, silent, broken:
		if r.net.askedOnce(host) {
			return r.end(kind, host, err)
		}
	}
	wait := backoff(r.waits)
	r.waits++
	if kind != starting {
		r.start = time.Time{}
	} else if r.start.IsZero() {
		r.start = now
	}
	if kind != unreached {
		r.away = time.Time{}
	} else if r.away.IsZero() {
		r.away = now
	}
	if left, down := r.net.wait(now); kind == unreached && down && r.max >= 0 {
		if left <= 0 {
			return r.end(kind, host, err)
		}
		if r.patience > 0 {
			if left = min(left, r.away.Add(r.patience).Sub(now)); left <= 0 {
				return err // others may wait longer
			}
		}
		quiet := r.net.announce(host)
		defer quiet()
		return sleep(ctx, min(wait, reachWait, left))
	}
	if kind == starting && r.max >= 0 {
		most := startTime
		if r.patience > 0 {
			most = min(most, r.patience)
		}
		left := r.start.Add(most).Sub(now)
		if left <= 0 {
			return r.end(kind, host, err)
		}
		quiet := r.net.announceStart(host, err, r.start.Add(sayAfter).Sub(now))
		defer quiet()
		return sleep(ctx, min(wait, startWait, left))
	}
	r.failures++
	most := r.max
	if m, ok := mostTries[kind]; ok {
		most = min(most, m)
	}
	if kind == broken && host != "" && !r.net.answered(host) {
		most = min(most, mostUnheard)
	}
	if r.failures > most || kind == unreached && now.Add(wait).Sub(r.away) > reachTime {
		return r.end(kind, host, err)
	}
	if status != nil && status.RetryAfter > 0 {
		if status.RetryAfter > longestRetryAfter {
			return err
		}
		// Jitter on top, so that all clients with the same answer don't come at once.
		wait = status.RetryAfter + rand.N(firstWait)
	}
	return sleep(ctx, wait)
}

// end gives up the host that was tried in vain.
func (r *retry) end(kind fate, host string, err error) error {
	switch kind {
	case unreached:
		if _, down := r.net.wait(time.Now()); down {
			err = &fault{err: fmt.Errorf("%w; no host answered within %v", err, r.net.opt.Patience), fate: unreached, host: host}
		}
		r.net.giveUp(host, err, kind)
	case refused, starting:
		if r.max > 0 {
			r.net.giveUp(host, err, kind)
		}
	case silent, broken:
		// Of a host that answers, it is the URL that fails.
		if r.max > 0 && !r.net.answered(host) {
			r.net.giveUp(host, err, kind)
		}
	}
	return err
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
