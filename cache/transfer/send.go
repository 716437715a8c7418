package transfer

import (
	"context"
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

// Send sends one request, once, and follows no redirect: a caller that changes something
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
		req.Body = &sentBody{ReadCloser: req.Body, w: watch, limit: c.stall, left: req.ContentLength}
		req.GetBody = nil // a second time is the caller's to decide
		limit = c.stall
	}
	once := &http.Client{Transport: c.http.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.doBy(once, req, watch, limit)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", req.Method, Redact(req.URL.String()), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(watch.reader(resp.Body, c.stall, &pace{}), maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", req.Method, Redact(req.URL.String()), watch.reason(err))
	}
	if len(body) > maxAnswer {
		return nil, Fatal(fmt.Errorf("%s %s: an answer of more than %d bytes", req.Method, Redact(req.URL.String()), maxAnswer))
	}
	return &Answer{resp.StatusCode, resp.Header, body, req.URL.String()}, nil
}

// sentPiece bounds what is sent at a time. A piece that the network does not
// take within the stall limit breaks the upload off, so it must be no more than
// what the floor of speed allows for that time.
const sentPiece = 8 << 10

// sentBody is a body that is watched, and measured, while it is sent.
type sentBody struct {
	io.ReadCloser
	w     *watch
	limit time.Duration
	left  int64 // bytes; negative while not known
	pace  pace
	piece int // what the network is taking; 0 before the first
}

func (b *sentBody) Read(p []byte) (int, error) {
	// What was read before has been taken by the network.
	b.w.relax()
	if b.piece > 0 {
		if slow := b.pace.end(b.piece); slow != nil {
			b.w.cancel(slow)
			return 0, slow
		}
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), sentPiece)])
	b.left -= int64(n)
	if b.piece = n; n > 0 {
		b.pace.begin()
	}
	if err == io.EOF || b.left == 0 {
		b.w.expect(uploadedWait)
	} else {
		b.w.expect(b.limit)
	}
	return n, err
}

// Retry calls attempt until it succeeds, its error is one that another try
// would return again, or the tries are used up. A patience other than 0 goes
// before the network's.
func (c *Client) Retry(ctx context.Context, patience time.Duration, attempt func() error) error {
	r := c.newRetry(patience)
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		if err := r.next(ctx, err); err != nil {
			return err
		}
	}
}
