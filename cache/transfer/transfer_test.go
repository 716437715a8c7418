package transfer

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// pipes is a network of one host in memory, so that time can be a bubble's.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
}

// serve runs f in a bubble, with a client of a server in memory. The handler is
// told which request it answers, from 1.
func serve(t *testing.T, opt Options, h func(n int, w http.ResponseWriter, r *http.Request), f func(t *testing.T, c *Client, requests *atomic.Int32)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{make(chan net.Conn), make(chan struct{})}
		var requests atomic.Int32
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h(int(requests.Add(1)), w, r)
		})}
		go srv.Serve(p)
		tr := NewTransport()
		tr.Proxy = nil
		tr.DialContext = p.dial
		if opt.Transport == nil {
			opt.Transport = tr
		}
		f(t, New(opt), &requests)
		tr.CloseIdleConnections()
		srv.Close()
		time.Sleep(24 * time.Hour) // virtual: handlers that sleep find their connection closed
	})
}

// content is the file that the tests' servers have.
func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

// send answers as a server that knows ranges, with an ETag.
func send(w http.ResponseWriter, r *http.Request, etag string, b []byte) {
	w.Header().Set("ETag", etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

// cutAfter sends n bytes of b as if all were to follow, and hangs up.
func cutAfter(w http.ResponseWriter, etag string, b []byte, n int) {
	w.Header().Set("ETag", etag)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.Write(b[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// rewinder is a Rewinder that counts.
type rewinder struct {
	bytes.Buffer
	rewound int
}

func (r *rewinder) Rewind() error { r.rewound++; r.Reset(); return nil }

// plain hides all methods but Write.
type plain struct{ io.Writer }

var (
	wholeFile   = content(300_000)
	changedFile = append([]byte("new "), wholeFile...)
)

const halfOfFile = 150_000

func hang(w http.ResponseWriter, r *http.Request) {
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

var interruptedTransfers = []struct {
	name     string
	answer   func(n int, w http.ResponseWriter, r *http.Request)
	rewind   bool // the writer is a Rewinder
	want     []byte
	err      error
	requests int32
	rewound  int
	took     time.Duration // at least; virtual
}{
	{
		name: "a cut is resumed where it was",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				cutAfter(w, `"a"`, wholeFile, halfOfFile)
			}
			if r.Header.Get("Range") != "bytes=150000-" || r.Header.Get("If-Range") != `"a"` {
				http.Error(w, "no range", http.StatusTeapot)
				return
			}
			send(w, r, `"a"`, wholeFile)
		},
		want: wholeFile, requests: 2,
	},
	{
		name: "a stall is resumed after 10 seconds",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				w.Header().Set("ETag", `"a"`)
				w.Header().Set("Content-Length", fmt.Sprint(len(wholeFile)))
				w.Write(wholeFile[:halfOfFile])
				hang(w, r)
				return
			}
			if r.Header.Get("Range") == "" {
				http.Error(w, "no range", http.StatusTeapot)
				return
			}
			send(w, r, `"a"`, wholeFile)
		},
		want: wholeFile, requests: 2, took: 10 * time.Second,
	},
	{
		name: "an answer that does not begin is asked for again",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				<-r.Context().Done()
				return
			}
			send(w, r, `"a"`, wholeFile)
		},
		want: wholeFile, requests: 2, took: 10 * time.Second,
	},
	{
		name: "a slow trickle is no stall",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			for i := range 20 {
				time.Sleep(9 * time.Second)
				w.Write(wholeFile[i*10_000 : (i+1)*10_000])
				w.(http.Flusher).Flush()
			}
		},
		want: wholeFile[:200_000], requests: 1, took: 180 * time.Second,
	},
	{
		name: "a transfer that moves on is taken up without end",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			from := 0
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			to := min(from+10_000, len(wholeFile))
			w.Header().Set("ETag", `"a"`)
			w.Header().Set("Content-Length", fmt.Sprint(len(wholeFile)-from))
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(wholeFile)-1, len(wholeFile)))
				w.WriteHeader(http.StatusPartialContent)
			}
			w.Write(wholeFile[from:to])
			w.(http.Flusher).Flush()
			if to < len(wholeFile) {
				panic(http.ErrAbortHandler)
			}
		},
		want: wholeFile, requests: 30,
	},
	{
		name: "a whole answer to a range is compared, and its rest taken",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				cutAfter(w, `"a"`, wholeFile, halfOfFile)
			}
			w.Write(wholeFile)
		},
		want: wholeFile, requests: 2,
	},
	{
		name: "a writer that rewinds is started over",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				cutAfter(w, `"a"`, wholeFile, halfOfFile)
			}
			send(w, r, `"b"`, changedFile) // If-Range doesn't match: 200
		},
		rewind: true, want: changedFile, requests: 2, rewound: 1,
	},
	{
		name: "a changed file and a writer that cannot rewind",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				cutAfter(w, `"a"`, wholeFile, halfOfFile)
			}
			send(w, r, `"b"`, changedFile)
		},
		err: ErrChanged, requests: 2,
	},
	{
		name: "a file that is now shorter than what has arrived",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				cutAfter(w, `"a"`, wholeFile, halfOfFile)
			}
			send(w, r, `"b"`, wholeFile[:100])
		},
		err: ErrChanged, requests: 2,
	},
	{
		name: "a server that ignores If-Range does not mix two files",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				cutAfter(w, `"a"`, wholeFile, halfOfFile)
			}
			r.Header.Del("If-Range")
			send(w, r, `"b"`, changedFile)
		},
		rewind: true, want: changedFile, requests: 3, rewound: 1,
	},
	{
		name: "a range that begins elsewhere is refused",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				cutAfter(w, `"a"`, wholeFile, halfOfFile)
			}
			if r.Header.Get("Range") != "" {
				r.Header.Set("Range", "bytes=5-")
			}
			send(w, r, `"a"`, wholeFile)
		},
		want: wholeFile, requests: 3,
	},
	{
		name: "without a validator no range is asked for",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				http.Error(w, "a range", http.StatusTeapot)
				return
			}
			if n == 1 {
				w.Header().Set("ETag", `W/"a"`)
				w.Header().Set("Content-Length", fmt.Sprint(len(wholeFile)))
				w.Write(wholeFile[:halfOfFile])
				panic(http.ErrAbortHandler)
			}
			w.Write(wholeFile)
		},
		want: wholeFile, requests: 2,
	},
	{
		name: "a chunked answer without its end is no whole file",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				w.Header().Set("ETag", `"a"`)
				w.Write(wholeFile)
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			send(w, r, `"a"`, wholeFile) // 416: nothing is left
		},
		want: wholeFile, requests: 2,
	},
	{
		name: "busy servers are asked again, when they say",
		answer: func(n int, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				w.Header().Set("Retry-After", "7")
				http.Error(w, "busy", http.StatusTooManyRequests)
			case 2:
				w.Header().Set("Retry-After", time.Now().Add(20*time.Second).UTC().Format(http.TimeFormat))
				http.Error(w, "down", http.StatusServiceUnavailable)
			case 3:
				http.Error(w, "slow", http.StatusRequestTimeout)
			default:
				send(w, r, `"a"`, wholeFile)
			}
		},
		want: wholeFile, requests: 4, took: 26 * time.Second,
	},
}

func TestInterruptedTransfers(t *testing.T) {
	for _, tt := range interruptedTransfers {
		t.Run(tt.name, func(t *testing.T) {
			serve(t, Options{}, tt.answer, func(t *testing.T, c *Client, requests *atomic.Int32) {
				var buf rewinder
				var w io.Writer = plain{&buf}
				if tt.rewind {
					w = &buf
				}
				var progress int64
				start := time.Now()
				res, err := c.Get(t.Context(), "http://host/file", w, GetOptions{
					Progress: func(n int64) { progress += n },
				})
				if !errors.Is(err, tt.err) {
					t.Fatalf("error = %v, want %v", err, tt.err)
				}
				if got := requests.Load(); got != tt.requests {
					t.Errorf("%d requests, want %d", got, tt.requests)
				}
				if took := time.Since(start); took < tt.took {
					t.Errorf("took %v, want at least %v", took, tt.took)
				}
				if tt.err != nil {
					return
				}
				if !bytes.Equal(buf.Bytes(), tt.want) {
					t.Errorf("%d bytes that differ from the %d wanted", buf.Len(), len(tt.want))
				}
				if res.Digest != digest.FromBytes(tt.want) || res.Size != int64(len(tt.want)) {
					t.Errorf("result %+v", res)
				}
				if buf.rewound != tt.rewound {
					t.Errorf("rewound %d times, want %d", buf.rewound, tt.rewound)
				}
				if tt.rewound == 0 && progress != res.Size {
					t.Errorf("progress %d, want %d", progress, res.Size)
				}
			})
		})
	}
}

func TestHTTPErrorsAreNoContent(t *testing.T) {
	for code, requests := range map[int]int32{
		400: 1, 401: 1, 403: 1, 404: 1, 410: 1, 501: 1, 204: 1, 206: 1, 304: 1,
		408: 3, 429: 3, 500: 3, 502: 3, 503: 3, 504: 3,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			serve(t, Options{Retries: 2}, func(_ int, w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(code)
				w.Write([]byte("<html>not the file</html>"))
			}, func(t *testing.T, c *Client, n *atomic.Int32) {
				var buf bytes.Buffer
				_, err := c.Get(t.Context(), "http://host/file", &buf, GetOptions{})
				var status *StatusError
				if !errors.As(err, &status) || status.Code != code || status.URL != "http://host/file" {
					t.Errorf("error = %v", err)
				}
				if buf.Len() > 0 {
					t.Errorf("content %q", buf.String())
				}
				if n.Load() != requests {
					t.Errorf("%d requests, want %d", n.Load(), requests)
				}
			})
		})
	}
}

func TestLongRetryAfterIsAnError(t *testing.T) {
	serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	}, func(t *testing.T, c *Client, n *atomic.Int32) {
		_, err := c.Get(t.Context(), "http://host/file", io.Discard, GetOptions{})
		var status *StatusError
		if !errors.As(err, &status) || status.RetryAfter != time.Hour || n.Load() != 1 {
			t.Errorf("error = %v after %d requests", err, n.Load())
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCancelEndsEveryWait(t *testing.T) {
	serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}, func(t *testing.T, c *Client, n *atomic.Int32) {
		reason := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(100*time.Millisecond, func() { cancel(reason) })
		start := time.Now()
		_, err := c.Get(ctx, "http://host/file", io.Discard, GetOptions{})
		if !errors.Is(err, reason) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("error = %v after %v", err, time.Since(start))
		}
	})
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestWriterErrorIsNotRetried(t *testing.T) {
	serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("hello"))
	}, func(t *testing.T, c *Client, n *atomic.Int32) {
		_, err := c.Get(t.Context(), "http://host/file", full{}, GetOptions{})
		if !errors.Is(err, syscall.ENOSPC) || n.Load() != 1 {
			t.Errorf("error = %v after %d requests", err, n.Load())
		}
	})
}

func TestChecksum(t *testing.T) {
	serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("hello"))
	}, func(t *testing.T, c *Client, n *atomic.Int32) {
		want := digest.FromString("other")
		_, err := c.Get(t.Context(), "http://u:p@host/file?token=x", io.Discard, GetOptions{Checksum: want})
		var sum *ChecksumError
		if !errors.As(err, &sum) || sum.Want != want || sum.Got != digest.FromString("hello") || sum.URL != "http://host/file?..." {
			t.Errorf("error = %v", err)
		}
		good := digest.SHA512.FromString("hello")
		res, err := c.Get(t.Context(), "http://host/file", io.Discard, GetOptions{Checksum: good})
		if err != nil || res.Digest != good {
			t.Errorf("result %+v, error %v", res, err)
		}
		if _, err = c.Get(t.Context(), "http://host/file", io.Discard, GetOptions{Checksum: "sha256:12"}); err == nil {
			t.Error("a malformed checksum is accepted")
		}
	})
}

func TestUnchangedFileIsNotSentAgain(t *testing.T) {
	serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
		send(w, r, `"v1"`, []byte("hello"))
	}, func(t *testing.T, c *Client, n *atomic.Int32) {
		res, err := c.Get(t.Context(), "http://host/file", io.Discard, GetOptions{})
		if err != nil || res.ETag != `"v1"` {
			t.Fatalf("result %+v, error %v", res, err)
		}
		var buf bytes.Buffer
		_, err = c.Get(t.Context(), "http://host/file", &buf, GetOptions{ETag: res.ETag})
		if !errors.Is(err, ErrNotModified) || buf.Len() > 0 || n.Load() != 2 {
			t.Errorf("error = %v, %d bytes, %d requests", err, buf.Len(), n.Load())
		}
		_, err = c.Get(t.Context(), "http://host/file", &buf, GetOptions{ETag: `"v0"`})
		if err != nil || buf.String() != "hello" {
			t.Errorf("error = %v, content %q", err, buf.String())
		}
	})
}

func TestCompressedFilesArriveAsTheyAre(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write([]byte("hello"))
	z.Close()
	serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Values("Accept-Encoding"); len(got) != 1 || got[0] != "identity" {
			t.Errorf("Accept-Encoding: %q", got)
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(zipped.Bytes())
	}, func(t *testing.T, c *Client, n *atomic.Int32) {
		var buf bytes.Buffer
		if _, err := c.Get(t.Context(), "http://host/x.gz", &buf, GetOptions{}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf.Bytes(), zipped.Bytes()) {
			t.Error("the bytes differ")
		}
	})
}

func TestRedirects(t *testing.T) {
	serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
		var left int
		fmt.Sscanf(r.URL.Path, "/%d", &left)
		if ref := r.Header.Get("Referer"); ref != "" {
			t.Errorf("Referer: %s", ref)
		}
		if left > 0 {
			http.Redirect(w, r, fmt.Sprintf("/%d?signature=secret", left-1), http.StatusFound)
			return
		}
		w.Write([]byte("end"))
	}, func(t *testing.T, c *Client, n *atomic.Int32) {
		res, err := c.Get(t.Context(), "http://host/10", io.Discard, GetOptions{})
		if err != nil || res.FinalURL != "http://host/0?signature=secret" {
			t.Errorf("10 redirects: %+v, %v", res, err)
		}
		n.Store(0)
		_, err = c.Get(t.Context(), "http://host/11", io.Discard, GetOptions{})
		var re *RedirectError
		if !errors.As(err, &re) || n.Load() != 11 || strings.Contains(err.Error(), "secret") {
			t.Errorf("11 redirects: %v after %d requests", err, n.Load())
		}
	})
}

func TestRedirectNeverLeavesHTTPS(t *testing.T) {
	var asked atomic.Int32
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }))
	defer open.Close()
	safe := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, open.URL+"/x?token=secret", http.StatusFound)
	}))
	defer safe.Close()
	c := New(Options{Transport: safe.Client().Transport})
	_, err := c.Get(t.Context(), safe.URL, io.Discard, GetOptions{})
	var re *RedirectError
	if !errors.As(err, &re) || asked.Load() > 0 || strings.Contains(err.Error(), "secret") {
		t.Errorf("error = %v, %d requests", err, asked.Load())
	}
}

func TestUnknownCertificateIsNotRetried(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	var conns atomic.Int32
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	tr := NewTransport()
	tr.Proxy = nil
	if _, err := New(Options{Transport: tr}).Get(t.Context(), srv.URL, io.Discard, GetOptions{}); err == nil || conns.Load() != 1 {
		t.Errorf("error = %v after %d connections", err, conns.Load())
	}
}

func TestProxyThatRefusesIsNamed(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	tr := NewTransport()
	tr.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
	_, err := New(Options{Transport: tr}).Get(t.Context(), "https://example.invalid/x?token=secret", io.Discard, GetOptions{})
	var refused *ProxyError
	if !errors.As(err, &refused) || refused.Host != "example.invalid:443" || refused.Code != 403 || strings.Contains(err.Error(), "secret") {
		t.Errorf("error = %v", err)
	}
}

func TestSecretsOfURLsAreNeverShown(t *testing.T) {
	const u = "http://user:hunter2@host/file?token=hunter2#hunter2"
	var answers = map[string]func(w http.ResponseWriter, r *http.Request){
		"status": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) },
		"cut":    func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "ftp://user:hunter2@x/?hunter2", http.StatusFound)
		},
		"malformed redirect": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://hunter2:hunter2@ho st/%zz?hunter2")
			w.WriteHeader(302)
		},
		"stall": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	}
	for name, h := range answers {
		t.Run(name, func(t *testing.T) {
			serve(t, Options{Retries: 1}, func(_ int, w http.ResponseWriter, r *http.Request) { h(w, r) },
				func(t *testing.T, c *Client, _ *atomic.Int32) {
					_, err := c.Get(t.Context(), u, io.Discard, GetOptions{})
					if err == nil || strings.Contains(err.Error(), "hunter2") {
						t.Errorf("error = %v", err)
					}
				})
		})
	}
	for _, bad := range []string{u + "%zz\x7f", "http://user:hunter2@[::1/x?hunter2", "ftp://user:hunter2@host/?hunter2", "hunter2"} {
		_, err := New(Options{}).Get(t.Context(), bad, io.Discard, GetOptions{})
		if err == nil || bad != "hunter2" && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error = %v", err)
		}
	}
}

func TestContentRange(t *testing.T) {
	for s, want := range map[string]string{
		"bytes 5-9/10": "5 10 true", "bytes 5-9/*": "5 -1 true", "bytes */10": "-1 10 true",
		"": "0 0 false", "bytes": "0 0 false", "bytes 5": "0 0 false", "bytes -5/10": "0 0 false",
		"bytes 5-9/-1": "0 0 false", "items 5-9/10": "0 0 false", "bytes 99999999999999999999-/10": "0 0 false",
	} {
		a, b, ok := parseContentRange(s)
		if got := fmt.Sprint(a, b, ok); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

func TestRedact(t *testing.T) {
	for u, want := range map[string]string{
		"https://host/a/b":               "https://host/a/b",
		"https://u:p@host:8/a%20b?t=p#p": "https://host:8/a%20b?...",
		"https://u:p@host/%zz?p":         "https://host/%zz",
		"http://u:p@[::1/x?p":            "http://[::1/x",
		"http:u:p@host":                  "http:...",
		"github:owner/repo@ref":          "github:...",
		"\x7f":                           "(malformed URL)",
		"https://host/?":                 "https://host/",
	} {
		if got := Redact(u); got != want {
			t.Errorf("%q: %q, want %q", u, got, want)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	all := content(32 << 20)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(all) }))
	defer srv.Close()
	tr := NewTransport()
	tr.Proxy = nil
	c := New(Options{Transport: tr})
	b.SetBytes(int64(len(all)))
	for b.Loop() {
		if _, err := c.Get(b.Context(), srv.URL, io.Discard, GetOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
