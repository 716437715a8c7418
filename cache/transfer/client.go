// Package transfer moves bytes over HTTP: with retries of what is transient and of
// nothing else, a limit on silence and a floor of speed instead of a limit on
// time, resumption where a transfer broke off, and a check of what arrived.
//
// Nothing that it returns or prints holds the userinfo or the query of a URL:
// tokens and signatures live there. See [Redact].
package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
)

// Options is how a Client behaves. The zero Options is the default.
type Options struct {
	// Transport sends requests; nil means NewTransport(). It must not
	// decompress: a .gz file is downloaded as it is.
	Transport http.RoundTripper

	// Wrap returns what sends by the given transport, and adds something to
	// requests: credentials. nil adds nothing.
	Wrap func(http.RoundTripper) http.RoundTripper

	// Network is what is known about the network; nil means a new one.
	Network *Network

	UserAgent string // "" means "clayer"

	// Retries is how often in a row a request is sent again that returned
	// nothing new; 0 means 5, and less than 0 never. A transfer that moves on
	// between its cuts is taken up as often as that takes.
	Retries int

	// Stall is how long no byte may arrive before the transfer is broken off
	// and taken up where it stopped; 0 means 10 seconds. The head of an answer
	// gets this once at the first attempt, twice at the second, and then thrice:
	// some servers make an archive before they answer.
	Stall time.Duration
}

// A Client downloads. It is safe for concurrent use.
type Client struct {
	http    *http.Client
	network *Network
	agent   string
	retries int
	stall   time.Duration
	spans   chan struct{} // one for each range that may be under way
}

// New returns a client.
func New(opt Options) *Client {
	c := &Client{
		network: opt.Network,
		agent:   opt.UserAgent,
		retries: opt.Retries,
		stall:   opt.Stall,
		spans:   make(chan struct{}, maxSpans),
	}
	if c.network == nil {
		c.network = NewNetwork(NetworkOptions{})
	}
	if c.agent == "" {
		c.agent = "clayer"
	}
	if c.retries == 0 {
		c.retries = 5
	}
	if c.stall == 0 {
		c.stall = 10 * time.Second
	}
	rt := opt.Transport
	if rt == nil {
		tr := NewTransport()
		tr.AllowPrivate = c.network.opt.AllowPrivate
		rt = tr
	}
	rt = c.network.through(rt)
	if opt.Wrap != nil {
		rt = opt.Wrap(rt)
	}
	c.http = &http.Client{Transport: locations{rt}, CheckRedirect: checkRedirect}
	return c
}

// GetOptions is what one download asks for.
type GetOptions struct {
	// Checksum is what the bytes must have; "" accepts any. The bytes are in
	// the writer by the time that a mismatch is known: write to something that
	// can be thrown away.
	Checksum digest.Digest

	// ETag and LastModified make the request conditional: they are those of a
	// Result that the caller still has the bytes of. If nothing changed since,
	// Get writes nothing and returns ErrNotModified.
	ETag         string
	LastModified string

	// Patience is how long a host that is not reached is tried; 0 means as long
	// as the network's. A caller with something to fall back on waits less.
	Patience time.Duration

	// Header is sent with the request, and along redirects. Credentials are
	// the transport's to add, where they belong.
	Header http.Header

	// Progress is called with the bytes that arrived since it was called last. It is
	// called by one goroutine at a time. Bytes that arrive again, after a start
	// over, count again.
	Progress func(n int64)
}

// Result is what arrived.
type Result struct {
	Digest       digest.Digest // of the bytes, by the algorithm of GetOptions.Checksum, else SHA-256
	Size         int64
	FinalURL     string // after redirects; may hold secrets, see Redact
	ETag         string // as the server sent it; "" for none
	LastModified string // likewise
}

// ErrNotModified says that the server still has what the caller has.
var ErrNotModified = errors.New("not modified")

// A Rewinder is a writer that can forget what it was given. Where one is given
// to Get, a file that changes in mid-transfer is started over.
type Rewinder interface {
	io.Writer
	Rewind() error
}

// Get writes the content of an http or https URL to w.
//
// A cut or stalled transfer is resumed by a range request when the server named
// a validator (a strong ETag or Last-Modified). Otherwise, and when the server
// answers with the whole file, it is started over: w is rewound if it is a
// Rewinder, else the bytes that w has are read again and compared. Each attempt
// begins at url, so a redirect to a signed address is signed afresh.
//
// On error, w may hold a part of the content, but never the body of an HTTP
// error. The error is or wraps *StatusError, *ChecksumError, *RedirectError,
// *ProxyError, ErrNotModified, an error of w, or ctx's.
func (c *Client) Get(ctx context.Context, rawURL string, w io.Writer, opt GetOptions) (Result, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's error quotes all of the URL.
		return Result{}, fmt.Errorf("get %s: malformed URL", Redact(rawURL))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return Result{}, fmt.Errorf("get %s: not an http or https URL", Redact(rawURL))
	}
	algorithm := digest.Canonical
	if opt.Checksum != "" {
		if err := opt.Checksum.Validate(); err != nil {
			return Result{}, fmt.Errorf("checksum %q: %w", opt.Checksum, err)
		}
		algorithm = opt.Checksum.Algorithm()
	}
	d := &download{
		client:    c,
		url:       u.String(),
		w:         w,
		opt:       opt.withProgress(ctx),
		algorithm: algorithm,
		hash:      algorithm.Hash(),
		total:     -1,
	}
	if err := d.run(ctx); err != nil {
		return Result{}, err
	}
	res := d.result
	res.Digest = digest.NewDigest(algorithm, d.hash)
	res.Size = d.done
	if opt.Checksum != "" && res.Digest != opt.Checksum {
		return res, &ChecksumError{URL: Redact(rawURL), Want: opt.Checksum, Got: res.Digest}
	}
	return res, nil
}

// do sends a request, and follows redirects. The error is a *fault.
func (c *Client) do(req *http.Request, w *watch, headLimit time.Duration) (*http.Response, error) {
	return c.doBy(c.http, req, w, headLimit)
}

func (c *Client) doBy(by *http.Client, req *http.Request, w *watch, headLimit time.Duration) (*http.Response, error) {
	w.host = req.URL.Host
	w.expect(headLimit)
	resp, err := by.Do(req)
	w.relax()
	if err != nil {
		err = unwrapURLError(err, req.URL)
		var known *fault
		switch {
		case errors.As(err, &known):
		case w.ctx.Err() != nil:
			err = ended(w.ctx, w.host, err)
		default: // of what is put around the transport, or of http.Client itself
			err = Fatal(err)
		}
		return nil, err
	}
	w.host = resp.Request.URL.Host
	return resp, nil
}
