package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// Redact returns a URL as it may be shown: without userinfo and fragment, and
// with "..." for a query. Tokens and signatures live there.
func Redact(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		// Parse fails on what a user may well have typed; show what comes
		// before the parts that may be secret.
		s, _, _ := strings.Cut(rawURL, "#")
		s, _, _ = strings.Cut(s, "?")
		scheme, rest, ok := strings.Cut(s, "://")
		if !ok {
			return "(malformed URL)"
		}
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			rest = rest[i+1:]
		}
		return scheme + "://" + rest
	}
	if u.Opaque != "" { // "http:user:password@host"
		return u.Scheme + ":..."
	}
	u.User = nil
	u.Fragment, u.RawFragment = "", ""
	query := u.RawQuery != ""
	u.RawQuery = ""
	u.ForceQuery = false
	if query {
		return u.String() + "?..."
	}
	return u.String()
}

var anyURL = lazyregexp.New(`https?:[^\s"'<>]+`)

// RedactText returns a text with every URL in it as Redact shows it.
func RedactText(text string) string { return anyURL().ReplaceAllStringFunc(text, Redact) }

// A StatusError is an answer other than the file.
type StatusError struct {
	URL        string        // redacted
	Host       string        // that answered, where a redirect led to another; else ""
	Code       int           // the HTTP status
	RetryAfter time.Duration // what the server asked for; 0 for nothing
	Limited    bool          // it limits requests, and refuses nothing

	stale bool // the address that was asked came from a redirect, and may have expired
}

// expired reports whether a fresh address may have another answer.
func (e *StatusError) expired() bool { return e.stale && !e.Limited }

func (e *StatusError) Error() string {
	text := http.StatusText(e.Code)
	if text == "" {
		text = "unknown status"
	}
	if e.Host != "" {
		return fmt.Sprintf("get %s: %s answers %d %s", e.URL, e.Host, e.Code, text)
	}
	return fmt.Sprintf("get %s: %d %s", e.URL, e.Code, text)
}

// newStatusError reads an answer that is no success; body is that of resp.
func newStatusError(rawURL string, resp *http.Response, body io.Reader, now time.Time) *StatusError {
	e := &StatusError{URL: Redact(rawURL), Code: resp.StatusCode}
	if resp.Request != nil {
		if u, err := url.Parse(rawURL); err != nil || u.Host != resp.Request.URL.Host {
			e.Host = resp.Request.URL.Host
		}
		if resp.Request.Response != nil {
			e.stale = e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden || e.Code == http.StatusBadRequest && saysExpired(body)
		}
	}
	e.RetryAfter, e.Limited = RateLimit(e.Code, resp.Header, now)
	if !e.Limited {
		e.RetryAfter = RetryAfter(resp.Header, now)
	}
	return e
}

// saysExpired reports whether the body of a 400 is that of storage where the
// signature in an address has expired. Google's answers so, and Amazon's for a
// token with an end of its own; others answer 403.
func saysExpired(body io.Reader) bool {
	text, _ := io.ReadAll(io.LimitReader(body, 4<<10)) // what was read is enough, or is not
	return bytes.Contains(text, []byte("ExpiredToken"))
}

// RateLimit reports whether an answer is of a limit on requests, and how long
// the server asks for a pause; 0 if it does not say. GitHub answers 429 or
// 403, with Retry-After, or with nothing remaining until the reset:
// https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
func RateLimit(code int, h http.Header, now time.Time) (wait time.Duration, limited bool) {
	after := RetryAfter(h, now)
	spent := h.Get("X-RateLimit-Remaining") == "0"
	if code != http.StatusTooManyRequests && (code != http.StatusForbidden || after == 0 && !spent) {
		return 0, false
	}
	if after > 0 || !spent {
		return after, true
	}
	reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		return 0, true
	}
	// The reset is of the server's clock; ours may be wrong.
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(time.Unix(reset, 0).Sub(now), 0) + time.Second, true
}

// RetryAfter returns what a Retry-After header asks for; 0 for nothing.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	after := h.Get("Retry-After")
	if s, err := strconv.ParseUint(after, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	t, err := http.ParseTime(after)
	if err != nil {
		return 0
	}
	// By the server's clock, where it says so: ours may be wrong.
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return max(t.Sub(now), 0)
}

// A ChecksumError says that other bytes arrived than those that were asked for.
type ChecksumError struct {
	URL       string // redacted
	Want, Got digest.Digest
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("checksum mismatch for %s: want %s, got %s", e.URL, e.Want, e.Got)
}

// A SizeError says that something else arrived than the file that was asked
// for: a page to log in at, say.
type SizeError struct {
	URL       string // redacted
	Want, Got int64  // bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("get %s: %d bytes, want %d", e.URL, e.Got, e.Want)
}

// A RedirectError is a redirect that is not followed.
type RedirectError struct {
	To      string // redacted
	Reason  string
	Private string // the host, where NetworkOptions.AllowPrivate would allow it; else ""
}

func (e *RedirectError) Error() string { return fmt.Sprintf("redirect to %s: %s", e.To, e.Reason) }

// A ProxyError says that a proxy would not connect to a host.
type ProxyError struct {
	Host string // that was asked for, with port
	Code int    // the proxy's HTTP status
}

func (e *ProxyError) Error() string {
	return fmt.Sprintf("the proxy refuses %s: %d %s", e.Host, e.Code, http.StatusText(e.Code))
}

// unwrapURLError takes off the layer that net/http puts around errors: its text
// quotes the URL with its query. Where a redirect led to a host other than
// asked's, that host is named: it may be the one that a network blocks.
func unwrapURLError(err error, asked *url.URL) error {
	var ue *url.Error
	if !errors.As(err, &ue) {
		return err
	}
	var redirect *RedirectError // names it
	if u, perr := url.Parse(ue.URL); perr == nil && u.Host != "" && u.Host != asked.Host && !errors.As(err, &redirect) {
		return fmt.Errorf("%s: %w", u.Host, ue.Err)
	}
	return ue.Err
}
