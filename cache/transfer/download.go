package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// A download is one Get: what has arrived over all of its attempts.
// Only its own goroutine uses it.
type download struct {
	client    *Client
	url       string // with its secrets
	w         io.Writer
	opt       GetOptions
	algorithm digest.Algorithm

	hash hash.Hash // of the done bytes
	done int64     // bytes that w has
	best int64     // the most that done ever was

	pace    pace
	writing time.Duration // what w took of the time of an attempt

	total     int64  // bytes of the whole file; -1 while unknown
	validator string // for If-Range; "" if a range cannot be asked for safely
	whole     bool   // the server's ranges are no use: ask for all of it
	result    Result
}

// run makes attempts until one completes the file or none may follow.
func (d *download) run(ctx context.Context) error {
	r := d.client.newRetry(d.opt.Patience)
	for {
		err := d.attempt(ctx, d.client.headLimit(r))
		if err == nil {
			return nil
		}
		if d.done > d.best {
			r.progress(d.done-d.best, d.writing)
			d.best, d.writing = d.done, 0
		}
		if err := r.next(ctx, err); err != nil {
			return explain(d.url, err, r.attempts)
		}
	}
}

// headLimit is how long the head of the next answer may take: some servers make
// an archive before they answer.
func (c *Client) headLimit(r *retry) time.Duration {
	return c.stall * time.Duration(min(r.failures, 2)+1)
}

// explain adds the URL where err doesn't name it, and how often it was tried.
func explain(url string, err error, attempts int) error {
	var status *StatusError
	if !errors.As(err, &status) {
		err = fmt.Errorf("get %s: %w", Redact(url), err)
	}
	if attempts > 1 && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w (tried %d times)", err, attempts)
	}
	return err
}

// attempt sends one request and takes in what arrives. It returns nil when
// the file is complete.
func (d *download) attempt(ctx context.Context, headLimit time.Duration) error {
	ctx, watch := newWatch(ctx)
	defer watch.end()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return Fatal(errors.New("malformed URL"))
	}
	if d.opt.Header != nil {
		req.Header = d.opt.Header.Clone()
	}
	req.Header.Set("User-Agent", d.client.agent)
	// Asking for identity also stops net/http from asking for gzip and
	// unpacking it.
	req.Header.Set("Accept-Encoding", "identity")
	resuming := d.done > 0 && d.validator != "" && !d.whole
	conditional := false
	switch {
	case resuming:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.done))
		req.Header.Set("If-Range", d.validator)
	case d.done == 0:
		if d.opt.ETag != "" {
			req.Header.Set("If-None-Match", d.opt.ETag)
			conditional = true
		}
		if d.opt.LastModified != "" {
			req.Header.Set("If-Modified-Since", d.opt.LastModified)
			conditional = true
		}
	}

	resp, err := d.client.do(req, watch, headLimit)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	switch code := resp.StatusCode; {
	case code == http.StatusOK, code == http.StatusNonAuthoritativeInfo:
		if err := d.startOver(resp, watch); err != nil {
			return err
		}
		return d.take(resp.Body, watch)
	case code == http.StatusPartialContent && resuming:
		if !d.continues(resp) {
			d.whole = true
			return errRangeRefused
		}
		return d.take(resp.Body, watch)
	case code == http.StatusRequestedRangeNotSatisfiable && resuming:
		// What was cut off was the end mark alone: all bytes are here.
		if _, total, ok := parseContentRange(resp.Header.Get("Content-Range")); ok && total == d.done {
			return nil
		}
		d.whole = true
		return errRangeRefused
	case code == http.StatusNotModified && conditional:
		return Fatal(ErrNotModified)
	default:
		return newStatusError(d.url, resp, watch.reader(resp.Body, d.client.stall, &pace{}), time.Now())
	}
}

// errRangeRefused says that the next attempt must ask for the whole file.
var errRangeRefused = Transient(errors.New("the server does not continue where the transfer broke off"))

// ErrChanged says that a file changed while it was read, and that the writer
// could not be rewound.
var ErrChanged = errors.New("the file changed during the transfer")

// startOver prepares w so that the body of resp, the whole file, can be taken.
func (d *download) startOver(resp *http.Response, watch *watch) error {
	d.total = resp.ContentLength
	d.validator = strongValidator(resp.Header)
	d.result = Result{
		FinalURL:     resp.Request.URL.String(),
		ETag:         resp.Header.Get("ETag"),
		LastModified: resp.Header.Get("Last-Modified"),
	}
	if d.done == 0 {
		return nil
	}
	if rw, ok := d.w.(Rewinder); ok {
		if err := rw.Rewind(); err != nil {
			return Fatal(err)
		}
		d.hash.Reset()
		d.done = 0
		return nil
	}
	again := d.algorithm.Hash()
	body := watch.reader(resp.Body, d.client.stall, &d.pace)
	if n, err := io.CopyN(again, body, d.done); err != nil {
		if err == io.EOF {
			if n < d.done && (d.total < 0 || d.total < d.done) {
				return Fatal(ErrChanged) // it is shorter than what w has
			}
			err = io.ErrUnexpectedEOF
		}
		return watch.reason(err)
	}
	if !bytes.Equal(again.Sum(nil), d.hash.Sum(nil)) {
		return Fatal(ErrChanged)
	}
	return nil
}

// continues reports whether a 206 is the rest of the very file that w has the
// beginning of. A server may ignore If-Range.
func (d *download) continues(resp *http.Response) bool {
	start, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
	if !ok || start != d.done {
		return false
	}
	if total >= 0 && d.total >= 0 && total != d.total {
		return false
	}
	if etag := resp.Header.Get("ETag"); etag != "" && d.result.ETag != "" && etag != d.result.ETag {
		return false
	}
	if d.total < 0 {
		d.total = total
	}
	return true
}

// take moves the rest of the file from body to w.
func (d *download) take(body io.Reader, watch *watch) error {
	body = watch.reader(body, d.client.stall, &d.pace)
	buf := make([]byte, 128<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if d.total >= 0 && d.done+int64(n) > d.total {
				d.whole = true
				return &fault{err: fmt.Errorf("more than the %d bytes announced", d.total), fate: cut}
			}
			start := time.Now()
			if _, err := d.w.Write(buf[:n]); err != nil {
				return Fatal(err)
			}
			d.writing += time.Since(start)
			d.hash.Write(buf[:n])
			d.done += int64(n)
			if d.opt.Progress != nil {
				d.opt.Progress(int64(n))
			}
		}
		switch {
		case err == io.EOF && d.total >= 0 && d.done < d.total:
			return watch.reason(io.ErrUnexpectedEOF)
		case err == io.EOF:
			return nil
		case err != nil:
			return watch.reason(err)
		}
	}
}

// strongValidator returns what an If-Range may hold, or "".
func strongValidator(h http.Header) string {
	if etag := h.Get("ETag"); etag != "" {
		if strings.HasPrefix(etag, "W/") {
			return ""
		}
		return etag
	}
	// A date is strong only if it is older than the answer by a second or more
	// (RFC 9110, 8.8.2.2): two versions may share one.
	mod, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return ""
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil && date.Sub(mod) < time.Second {
		return ""
	}
	return h.Get("Last-Modified")
}

// parseContentRange reads "bytes 5-9/10", "bytes 5-9/*" and "bytes */10".
// start is -1 where there is none, and total -1 where it is not known.
func parseContentRange(s string) (start, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, false
	}
	span, size, ok := strings.Cut(s, "/")
	if !ok {
		return 0, 0, false
	}
	start, total = -1, -1
	if size != "*" {
		n, err := strconv.ParseUint(size, 10, 63)
		if err != nil {
			return 0, 0, false
		}
		total = int64(n)
	}
	if span != "*" {
		first, _, ok := strings.Cut(span, "-")
		if !ok {
			return 0, 0, false
		}
		n, err := strconv.ParseUint(first, 10, 63)
		if err != nil {
			return 0, 0, false
		}
		start = int64(n)
	}
	return start, total, true
}
