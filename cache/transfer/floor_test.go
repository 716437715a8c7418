package transfer

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// trickle writes n bytes at a time, every so often.
func trickle(w io.Writer, b []byte, n int, every time.Duration) {
	for len(b) > 0 {
		time.Sleep(every)
		n = min(n, len(b))
		if _, err := w.Write(b[:n]); err != nil {
			return
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		b = b[n:]
	}
}

// A server that never stalls, and never ends either, is given up.
func TestTooSlowIsGivenUp(t *testing.T) {
	all := content(300_000)
	tests := []struct {
		name     string
		answer   func(n int, w http.ResponseWriter, r *http.Request)
		ok       bool
		requests int32
		most     time.Duration
		says     string
	}{
		{
			name: "a byte every 2 seconds",
			answer: func(_ int, w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", `"a"`)
				trickle(w, all, 1, 2*time.Second)
			},
			requests: 2, most: 70 * time.Second, says: "slower than 1000 bytes a second for 30s (tried 2 times)",
		},
		{
			name: "a byte for each connection",
			answer: func(_ int, w http.ResponseWriter, r *http.Request) {
				from := 0
				fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
				w.Header().Set("ETag", `"a"`)
				w.Header().Set("Content-Length", fmt.Sprint(len(all)-from))
				if from > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(all)-1, len(all)))
					w.WriteHeader(http.StatusPartialContent)
				}
				w.Write(all[from : from+1])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			},
			requests: 4, most: 10 * time.Second, says: "unexpected EOF",
		},
		{
			name: "too slow at first",
			answer: func(n int, w http.ResponseWriter, r *http.Request) {
				if n == 1 {
					w.Header().Set("ETag", `"a"`)
					trickle(w, all, 1, 2*time.Second)
					return
				}
				send(w, r, `"a"`, all)
			},
			ok: true, requests: 2, most: 40 * time.Second,
		},
		{
			name: "just fast enough",
			answer: func(_ int, w http.ResponseWriter, r *http.Request) {
				trickle(w, all, 1100, time.Second)
			},
			ok: true, requests: 1, most: 300 * time.Second,
		},
		{
			name: "a head that comes a byte at a time",
			answer: func(_ int, w http.ResponseWriter, r *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					panic(err)
				}
				defer conn.Close()
				trickle(conn, []byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), 1, 2*time.Second)
			},
			requests: 3, most: 62 * time.Second, says: "nothing arrived for 30s (tried 3 times)",
		},
		{
			name: "no head at all",
			answer: func(_ int, w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
			},
			requests: 3, most: 62 * time.Second, says: "nothing arrived for 30s (tried 3 times)",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			serve(t, Options{}, tt.answer, func(t *testing.T, c *Client, requests *atomic.Int32) {
				var buf bytes.Buffer
				start := time.Now()
				_, err := c.Get(t.Context(), "http://host/file", &buf, GetOptions{})
				if took := time.Since(start); took > tt.most || requests.Load() > tt.requests {
					t.Errorf("%d requests in %v; want at most %d in %v", requests.Load(), took, tt.requests, tt.most)
				}
				switch {
				case tt.ok && (err != nil || !bytes.Equal(buf.Bytes(), all)):
					t.Errorf("%d bytes, %v", buf.Len(), err)
				case !tt.ok && (err == nil || !strings.Contains(err.Error(), tt.says)):
					t.Errorf("error = %v, want one that says %q", err, tt.says)
				}
			})
		})
	}
}

// A disk that is slower than the floor is not the server's fault.
func TestSlowDiskIsNoSlowServer(t *testing.T) {
	all := content(300_000)
	serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) { send(w, r, `"a"`, all) },
		func(t *testing.T, c *Client, requests *atomic.Int32) {
			n := 0
			_, err := c.Get(t.Context(), "http://host/file", writeFunc(func(p []byte) (int, error) {
				time.Sleep(time.Duration(len(p)) * 10 * time.Millisecond)
				n += len(p)
				return len(p), nil
			}), GetOptions{})
			if err != nil || n != len(all) || requests.Load() != 1 {
				t.Errorf("%d bytes by %d requests, %v", n, requests.Load(), err)
			}
		})
}

type writeFunc func(p []byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// The ranges of a file share the line: together they are measured.
func TestRangesTooSlow(t *testing.T) {
	size := int64(3 * spanSize)
	all := content(spanSize)
	serve(t, Options{}, func(n int, w http.ResponseWriter, r *http.Request) {
		var from, to int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		w.Header().Set("ETag", `"a"`)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, size))
		w.WriteHeader(http.StatusPartialContent)
		if to == 0 {
			w.Write(all[:1])
			return
		}
		trickle(w, all, 1, 2*time.Second)
	}, func(t *testing.T, c *Client, requests *atomic.Int32) {
		start := time.Now()
		err := c.Download(t.Context(), "http://host/file", nopFile{}, size, GetOptions{})
		if err == nil || !strings.Contains(err.Error(), "slower than 1000 bytes a second") {
			t.Errorf("error = %v", err)
		}
		if took := time.Since(start); took > 65*time.Second {
			t.Errorf("after %v and %d requests", took, requests.Load())
		}
	})
}

func TestUploadTooSlow(t *testing.T) {
	tests := []struct {
		name  string
		read  int // at a time
		every time.Duration
		ok    bool
		most  time.Duration
		says  string
	}{
		{name: "a byte every 2 seconds", read: 1, every: 2 * time.Second, most: 20 * time.Second, says: "nothing arrived for 10s"},
		{name: "below the floor, and never silent", read: 95, every: 100 * time.Millisecond, most: 70 * time.Second, says: "slower than 1000 bytes a second"},
		{name: "just fast enough", read: 6 << 10, every: 4 * time.Second, ok: true, most: 5 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
				buf := make([]byte, tt.read)
				for {
					time.Sleep(tt.every)
					if _, err := io.ReadFull(r.Body, buf); err != nil {
						break
					}
				}
				w.WriteHeader(http.StatusCreated)
			}, func(t *testing.T, c *Client, _ *atomic.Int32) {
				req, err := http.NewRequest(http.MethodPost, "http://host/", bytes.NewReader(content(200_000)))
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				a, err := c.Send(t.Context(), req)
				if took := time.Since(start); took > tt.most {
					t.Errorf("took %v, want at most %v", took, tt.most)
				}
				switch {
				case tt.ok && (err != nil || a.Code != http.StatusCreated):
					t.Errorf("%+v, %v", a, err)
				case !tt.ok && (err == nil || !strings.Contains(err.Error(), tt.says)):
					t.Errorf("error = %v, want one that says %q", err, tt.says)
				}
			})
		})
	}
}

// An answer to a request of the API that never ends is given up too.
func TestAnswerTooSlow(t *testing.T) {
	serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
		trickle(w, content(1000), 1, 2*time.Second)
	}, func(t *testing.T, c *Client, requests *atomic.Int32) {
		start := time.Now()
		err := c.Retry(t.Context(), 0, func() error {
			req, err := http.NewRequest(http.MethodGet, "http://host/", nil)
			if err != nil {
				return err
			}
			_, err = c.Send(t.Context(), req)
			return err
		})
		if took := time.Since(start); err == nil || took > 70*time.Second || requests.Load() != 2 {
			t.Errorf("error = %v after %v and %d requests", err, took, requests.Load())
		}
	})
}
