package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache/delta"
)

const (
	// spanSize is what one range request asks for. A file of less than two is
	// not worth the probe.
	spanSize = 16 << 20
	// spansEach is how many ranges of one file are under way at a time, and
	// maxSpans how many of all files of a client.
	spansEach = 4
	maxSpans  = 12
)

// A File is what Download writes to; *os.File is one.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// Download writes the size bytes of an http or https URL to f, beginning at
// offset 0; what f held is dropped. A large file comes in several ranges at the same time, if asking
// for its first byte shows that the server has ranges; each is taken up again
// where it was cut off or stalled. What arrived is not checked beyond its
// size: the caller knows the digest. Of a delta.Composite, what is near is copied if the
// server has ranges.
//
// The answer to the probe says where a redirect led: the ranges are asked for
// there, and at rawURL again when that fails, since signed addresses expire.
//
// The error is as for Get.
func (c *Client) Download(ctx context.Context, rawURL string, f File, size int64, opt GetOptions) error {
	r := composed(f, size)
	if r == nil {
		r = spread(size)
	}
	if r.near != nil || len(r.spans) > 0 {
		r.client, r.url, r.opt, r.size = c, rawURL, opt.withProgress(ctx), size
		if err := r.run(ctx, f); !errors.Is(err, errRangeRefused) {
			return err
		}
	}
	// If ranges came, another file may be there now: nothing of them is part of it.
	w := &fromStart{f: f}
	if err := w.Rewind(); err != nil {
		return fmt.Errorf("get %s: %w", Redact(rawURL), err)
	}
	res, err := c.Get(ctx, rawURL, w, opt)
	if err == nil && res.Size != size {
		err = &SizeError{URL: Redact(rawURL), Want: size, Got: res.Size}
	}
	return err
}

// fromStart writes to a File in order. It is a Rewinder.
type fromStart struct {
	f  File
	at int64
}

func (w *fromStart) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.at)
	w.at += int64(n)
	return n, err
}

func (w *fromStart) Rewind() error {
	w.at = 0
	return w.f.Truncate(0)
}

// ranged is one Download in ranges.
type ranged struct {
	client *Client
	url    string
	opt    GetOptions
	size   int64
	spans  []delta.Range
	near   delta.Composite // nil: all of it is downloaded

	pace      pace
	arrived   atomic.Int64 // bytes, of all ranges
	mu        sync.Mutex
	address   string // where the last redirect led; "" to ask at url
	validator string // of the file, for If-Range; "" for none
	progress  sync.Mutex
}

// spread returns the ranges of a large file; none for one that is not worth the probe.
func spread(size int64) *ranged {
	r := &ranged{}
	for from := int64(0); from < size && size >= 2*spanSize; from += spanSize {
		r.spans = append(r.spans, delta.Range{From: from, To: min(from+spanSize, size)})
	}
	return r
}

// composed returns the ranges of a file that are not near; nil for one that comes as a whole.
func composed(f File, size int64) *ranged {
	if near, ok := f.(delta.Composite); ok {
		if missing, ok := near.Missing(size); ok {
			return &ranged{near: near, spans: missing}
		}
	}
	return nil
}

// run downloads the ranges, and copies what is near.
func (r *ranged) run(ctx context.Context, f File) error {
	if len(r.spans) > 0 {
		first := r.spans[0].From // one byte: a server without ranges sends all, which is not read
		if err := r.get(ctx, &span{from: first, to: first + 1, probe: true}, discardAt{}); err != nil {
			return err
		}
	}
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("get %s: %w", Redact(r.url), err)
	}
	var lost []delta.Range
	copied := make(chan error, 1)
	copying, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		var err error
		if r.near != nil {
			lost, err = r.near.Copy(copying, r.size)
		}
		copied <- err
	}()
	err := r.getAll(ctx, f, r.spans)
	if err != nil {
		cancel()
	}
	if cerr := <-copied; err == nil && cerr != nil {
		err = fmt.Errorf("get %s: %w", Redact(r.url), cerr)
	}
	if err != nil || len(lost) == 0 {
		return err
	}
	return r.getAll(ctx, f, lost)
}

// getAll downloads ranges, several at a time.
func (r *ranged) getAll(ctx context.Context, f File, spans []delta.Range) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(spansEach)
	for _, s := range spans {
		eg.Go(func() error {
			select {
			case r.client.spans <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			defer func() { <-r.client.spans }()
			err := r.get(ctx, &span{from: s.From, to: s.To}, f)
			if err == nil && r.near != nil && r.near.Check(s) != nil {
				err = errRangeRefused // the server has no ranges, whatever it says
			}
			return err
		})
	}
	return eg.Wait()
}

type discardAt struct{}

func (discardAt) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// A span is a range of a file, from inclusive, to exclusive.
type span struct {
	from, to int64
	probe    bool          // it shows whether there are ranges, and is not used
	writing  time.Duration // what the file took of the time of an attempt
}

// get downloads a span, in as many attempts as that takes.
func (r *ranged) get(ctx context.Context, s *span, w io.WriterAt) error {
	again := r.client.newRetry(r.opt.Patience)
	arrived := r.arrived.Load()
	for {
		before := s.from
		r.mu.Lock()
		at := cmp.Or(r.address, r.url)
		r.mu.Unlock()
		err := r.attempt(ctx, at, s, w, r.client.headLimit(again))
		if err == nil || errors.Is(err, errRangeRefused) {
			return err
		}
		if s.from > before {
			// All ranges share the line: this one may well be slow.
			now := r.arrived.Load()
			again.progress(now-arrived, s.writing)
			arrived, s.writing = now, 0
		}
		r.forget(at)
		if err := again.next(ctx, err); err != nil {
			return explain(r.url, err, again.attempts)
		}
	}
}

// forget has the next attempt not use an address again that failed: the URL
// gives a fresh one.
func (r *ranged) forget(at string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.address == at {
		r.address = ""
	}
}

// attempt sends one request for what is left of the span.
func (r *ranged) attempt(ctx context.Context, to string, s *span, w io.WriterAt, headLimit time.Duration) error {
	if to != r.url {
		// A redirect led there, in an earlier attempt: it may go no further now.
		u, err := url.Parse(r.url)
		if err != nil {
			return Fatal(errors.New("malformed URL"))
		}
		ctx = LedBy(ctx, u)
	}
	ctx, watch := newWatch(ctx)
	defer watch.end()
	r.mu.Lock()
	validator := r.validator
	r.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return Fatal(errors.New("malformed URL"))
	}
	if r.opt.Header != nil {
		req.Header = r.opt.Header.Clone()
	}
	req.Header.Set("User-Agent", r.client.agent)
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", s.from, s.to-1))
	if validator != "" {
		req.Header.Set("If-Range", validator)
	}
	resp, err := r.client.do(req, watch, headLimit)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
	case http.StatusOK, http.StatusRequestedRangeNotSatisfiable:
		return errRangeRefused // no ranges here, or not of this file any more
	default:
		e := newStatusError(r.url, resp, watch.reader(resp.Body, r.client.stall, &pace{}), time.Now())
		e.stale = e.stale || to != r.url
		return e
	}
	start, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
	if !ok || start != s.from || total >= 0 && total != r.size {
		return errRangeRefused
	}
	r.mu.Lock()
	if final := resp.Request.URL.String(); final != r.url {
		r.address = final
	}
	if s.probe {
		r.validator = strongValidator(resp.Header)
	}
	r.mu.Unlock()
	return r.take(watch.reader(resp.Body, r.client.stall, &r.pace), s, w, watch)
}

// take moves the body to w, no more than the span.
func (r *ranged) take(body io.Reader, s *span, w io.WriterAt, watch *watch) error {
	buf := make([]byte, 128<<10)
	for s.from < s.to {
		n, err := body.Read(buf[:min(int64(len(buf)), s.to-s.from)])
		if n > 0 {
			start := time.Now()
			if _, err := w.WriteAt(buf[:n], s.from); err != nil {
				return Fatal(err)
			}
			s.writing += time.Since(start)
			s.from += int64(n)
			r.arrived.Add(int64(n))
			if r.opt.Progress != nil && !s.probe {
				r.progress.Lock()
				r.opt.Progress(int64(n))
				r.progress.Unlock()
			}
		}
		switch {
		case s.from == s.to:
		case err == io.EOF:
			return watch.reason(io.ErrUnexpectedEOF)
		case err != nil:
			return watch.reason(err)
		}
	}
	return nil
}
