package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// An Answer is what a server said to Send, whatever its status: all of it.
type Answer struct {
	Code   int
	Header http.Header
	Body   []byte
	URL    string // that was asked; it may hold secrets, see Redact
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// uploadedWait is how long the head of an answer may take once all of a body
// is sent: the server has to store it.
const uploadedWait = 2 * time.Minute

// Send sends one request, once, and follows no redirect: who changes something
// on a server must know what became of it before trying again. It is broken off
// when nothing moves for the stall limit. Where the request has a body, that is
// a limit on each piece of it.
//
// The error says that there is no answer; the request may have had its effect
// all the same. It holds no query and no userinfo.
func (c *Client) Send(ctx context.Context, req *http.Request) (*Answer, error) {
	ctx, watch := newWatch(ctx)
	defer watch.end()
	req = req.Clone(ctx)
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", c.agent)
	}
	limit := 2 * c.stall
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &sentBody{req.Body, watch, c.stall, req.ContentLength}
		req.GetBody = nil // a second time is the caller's to decide
		limit = c.stall
	}
	watch.expect(limit)
	once := http.Client{Transport: c.http.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := once.Do(req)
	watch.relax()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("%s %s: %w", req.Method, Redact(req.URL.String()), cause)
		}
		return nil, fmt.Errorf("%s %s: %w", req.Method, Redact(req.URL.String()), unwrapURLError(err, req.URL))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(watch.reader(resp.Body, c.stall), maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", req.Method, Redact(req.URL.String()), watch.reason(err))
	}
	if len(body) > maxAnswer {
		return nil, &fatalError{fmt.Errorf("%s %s: an answer of more than %d bytes", req.Method, Redact(req.URL.String()), maxAnswer)}
	}
	return &Answer{resp.StatusCode, resp.Header, body, req.URL.String()}, nil
}

// sentBody is a body that is watched while it is sent.
type sentBody struct {
	io.ReadCloser
	w     *watch
	limit time.Duration
	left  int64 // bytes; negative while not known
}

func (b *sentBody) Read(p []byte) (int, error) {
	// What was read before has been taken by the network.
	b.w.relax()
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if err == io.EOF || b.left == 0 {
		b.w.expect(uploadedWait)
	} else {
		b.w.expect(b.limit)
	}
	return n, err
}

// Retry calls attempt until it succeeds, its error is one that another try
// would bring again, or the client's tries are used up. A patience other than 0
// goes before the client's.
func (c *Client) Retry(ctx context.Context, patience time.Duration, attempt func() error) error {
	r := retry{max: c.retries, patience: cmp.Or(patience, c.patience)}
	for {
		err := attempt()
		if err == nil || ctx.Err() != nil {
			return err
		}
		wait, again := r.next(err, time.Now())
		if !again {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// IsFatal reports whether an error was marked by Fatal.
func IsFatal(err error) bool {
	var f *fatalError
	return errors.As(err, &f)
}

// Fatal marks an error as one that another try would bring again.
func Fatal(err error) error { return &fatalError{err} }
