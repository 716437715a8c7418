package transfer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func refusedAt(ip string) error {
	err := dialError(syscall.ECONNREFUSED).(*net.OpError)
	err.Addr = &net.TCPAddr{IP: net.ParseIP(ip), Port: 5000}
	return err
}

// A host that could not be reached is asked again after a minute, once; one that
// does not exist is not.
func TestOutagesPass(t *testing.T) {
	tests := []struct {
		name    string
		err     error
		heard   bool // the host answered before
		forGood bool
	}{
		{name: "refused", err: errRefused},
		{name: "refused, at a private address", err: refusedAt("10.1.2.3")},
		{name: "unreached", err: errNoAnswer},
		{name: "silent", err: &stallError{10 * time.Second}},
		{name: "broken", err: errReset},
		{name: "refused after it answered", err: errRefused, heard: true},
		{name: "no name, after it answered", err: errNoName, heard: true},
		{name: "no name", err: errNoName, forGood: true},
		{name: "a bad certificate", err: errBadCert, forGood: true},
		{name: "a proxy that refuses the host", err: errProxySays, forGood: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tries atomic.Int32
				up := tt.heard
				c := New(Options{
					Network: network(true, NetworkOptions{}),
					Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
						if r.URL.Host == "other" {
							return answer(r, 200)
						}
						tries.Add(1)
						if up {
							return answer(r, 200)
						}
						if stall, ok := errors.AsType[*stallError](tt.err); ok {
							return nil, &fault{err: stall, fate: silent, host: r.URL.Host}
						}
						return nil, tt.err
					}),
				})
				get := func(host string) (int32, error) {
					tries.Store(0)
					_, err := c.Get(t.Context(), "http://"+host+"/file", io.Discard, GetOptions{})
					return tries.Load(), err
				}
				if _, err := get("other"); err != nil {
					t.Fatal(err)
				}
				if tt.heard {
					if _, err := get("host"); err != nil {
						t.Fatal(err)
					}
					up = false
				}
				if _, err := get("host"); err == nil {
					t.Fatal("no error")
				}
				time.Sleep(50 * time.Second)
				if n, err := get("host"); n > 0 || !errors.Is(err, tt.err) {
					t.Errorf("within a minute: %d tries, %v", n, err)
				}
				time.Sleep(11 * time.Second)
				want := int32(1)
				if tt.forGood {
					want = 0
				}
				if n, err := get("host"); n != want || !errors.Is(err, tt.err) {
					t.Errorf("after a minute: %d tries, want %d; %v", n, want, err)
				}
				if n, _ := get("host"); n > 0 {
					t.Errorf("right after that: %d tries", n)
				}
				if tt.forGood {
					return
				}
				up = true
				time.Sleep(61 * time.Second)
				if _, err := get("host"); err != nil {
					t.Errorf("after the outage: %v", err)
				}
				// It has all its tries again.
				up = false
				if n, err := get("host"); err == nil || n < 2 && tt.err != errNoName {
					t.Errorf("another outage: %d tries, %v", n, err)
				}
			})
		})
	}
}

// One URL that yields nothing says nothing about others of a host that answers.
func TestOneURLDoesNotGiveUpItsHost(t *testing.T) {
	for name, bad := range map[string]func(w http.ResponseWriter, r *http.Request){
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"broken": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			serve(t, Options{}, func(_ int, w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/bad" {
					bad(w, r)
				}
			}, func(t *testing.T, c *Client, _ *atomic.Int32) {
				for _, tt := range []struct {
					path string
					ok   bool
				}{{"/good", true}, {"/bad", false}, {"/good", true}} {
					if _, err := c.Get(t.Context(), "http://host"+tt.path, io.Discard, GetOptions{}); (err == nil) != tt.ok {
						t.Errorf("%s: %v", tt.path, err)
					}
				}
			})
		})
	}
}

// A service of this machine or of its network may be about to start: it is waited
// for, with a word. A public host that refuses is not.
func TestRefusedConnectionsOfServicesThatStart(t *testing.T) {
	tests := []struct {
		name, url string
		err       error
		comes     time.Duration // 0 for never
		patience  time.Duration
		ok        bool
		most      time.Duration
		said      string
	}{
		{name: "loopback", url: "http://127.0.0.1:5000/", err: refusedAt("127.0.0.1"), comes: 3 * time.Second, ok: true, most: 4 * time.Second, said: "2s: 127.0.0.1:5000: connection refused"},
		{name: "a name of this network", url: "http://registry:5000/", err: refusedAt("172.18.0.2"), comes: 3 * time.Second, ok: true, most: 4 * time.Second, said: "2s: registry:5000: connection refused"},
		{name: "a network that looks for it", url: "http://registry:5000/", err: &net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9)}, Err: syscall.EHOSTUNREACH}, comes: 3 * time.Second, ok: true, most: 4 * time.Second, said: "2s: registry:5000: no route to host"},
		{name: "never", url: "http://localhost:5000/", err: refusedAt("127.0.0.1"), most: 4 * time.Second, said: "2s: localhost:5000: connection refused"},
		{name: "soon", url: "http://localhost:5000/", err: refusedAt("127.0.0.1"), comes: time.Second, ok: true, most: 2 * time.Second},
		{name: "something to fall back on", url: "http://localhost:5000/", err: refusedAt("127.0.0.1"), patience: time.Second, most: time.Second},
		{name: "a public host", url: "http://example.com/", err: refusedAt("192.0.2.1"), comes: 3 * time.Second, most: time.Second},
		{name: "a firewall of this machine", url: "http://10.0.0.9/", err: dialError(syscall.EPERM), comes: 3 * time.Second, most: time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var said []string
				c := New(Options{
					Network: network(true, NetworkOptions{Waiting: func(text string) {
						said = append(said, fmt.Sprintf("%v: %s", time.Since(start), text))
					}}),
					Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
						if tt.comes > 0 && time.Since(start) >= tt.comes {
							return answer(r, 200)
						}
						return nil, tt.err
					}),
				})
				_, err := c.Get(t.Context(), tt.url, io.Discard, GetOptions{Patience: tt.patience})
				if (err == nil) != tt.ok || err != nil && !errors.Is(err, tt.err) {
					t.Errorf("error = %v", err)
				}
				if took := time.Since(start); took > tt.most {
					t.Errorf("took %v, want at most %v", took, tt.most)
				}
				synctest.Wait()
				if got := strings.Join(said, "; "); got != tt.said {
					t.Errorf("said %q, want %q", got, tt.said)
				}
			})
		})
	}
}

// What is asked of this machine itself says nothing about the network, so the wait
// for it begins with the first request to another host.
func TestLoopbackDoesNotBeginTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var comes time.Time
		c := New(Options{Network: network(false, NetworkOptions{}), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			switch {
			case r.URL.Host == "localhost:1":
				return nil, errNoAnswer
			case r.URL.Host == "localhost:2":
				select {
				case <-time.After(28 * time.Second):
					return answer(r, 200)
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			case time.Now().Before(comes):
				return nil, errNoRoute
			}
			return answer(r, 200)
		}), Stall: time.Minute})
		get := func(host string) error {
			_, err := c.Get(t.Context(), "http://"+host+"/", io.Discard, GetOptions{})
			return err
		}
		if err := get("localhost:1"); err == nil {
			t.Error("no error")
		}
		go get("localhost:2")
		time.Sleep(20 * time.Second)
		comes = time.Now().Add(25 * time.Second)
		if err := get("host"); err != nil {
			t.Errorf("the network came up after 25s: %v", err)
		}
	})
}

// The wait is that of the requests that fail, not of one that was cancelled long ago.
func TestCancelledRequestDoesNotBeginTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var comes time.Time
		c := New(Options{Network: network(false, NetworkOptions{}), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "hangs" {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			if time.Now().Before(comes) {
				return nil, errNoRoute
			}
			return answer(r, 200)
		}), Retries: -1})
		if _, err := c.Get(t.Context(), "http://hangs/", io.Discard, GetOptions{}); err == nil {
			t.Error("no error")
		}
		c.retries = 5
		time.Sleep(time.Minute)
		comes = time.Now().Add(25 * time.Second)
		if _, err := c.Get(t.Context(), "http://host/", io.Discard, GetOptions{}); err != nil {
			t.Errorf("the network came up after 25s: %v", err)
		}
	})
}

// Storage says in different words that a signed address expired.
func TestExpiredAddressOfEachStorage(t *testing.T) {
	const (
		google  = `<?xml version='1.0' encoding='UTF-8'?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message><Details>Request signature expired at: 2026-01-01T00:00:00+00:00</Details></Error>`
		amazon  = `<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`
		invalid = `<Error><Code>InvalidArgument</Code><Message>Invalid argument.</Message></Error>`
	)
	tests := []struct {
		name, body string
		code       int
		ok         bool
	}{
		{"Google Cloud Storage", google, 400, true},
		{"Amazon S3", amazon, 403, true},
		{"a token that expired", `<Error><Code>ExpiredToken</Code></Error>`, 400, true},
		{"another 400", invalid, 400, false},
	}
	for _, tt := range tests {
		size := int64(2 * spanSize)
		for _, ranges := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/ranges=%v", tt.name, ranges), func(t *testing.T) {
				signed := 0
				serve(t, Options{}, func(n int, w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/file" {
						signed++
						http.Redirect(w, r, fmt.Sprintf("/signed?n=%d", signed), http.StatusFound)
						return
					}
					if r.URL.RawQuery == "n=1" {
						w.WriteHeader(tt.code)
						io.WriteString(w, tt.body)
						return
					}
					http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(zeros{}, 0, size))
				}, func(t *testing.T, c *Client, _ *atomic.Int32) {
					var err error
					if ranges {
						err = c.Download(t.Context(), "http://host/file", nopFile{}, size, GetOptions{})
					} else {
						_, err = c.Get(t.Context(), "http://host/file", io.Discard, GetOptions{})
					}
					if (err == nil) != tt.ok {
						t.Errorf("error = %v", err)
					}
				})
			})
		}
	}
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// The floor holds for all ranges of a file together: none is given up because its
// own share is less.
func TestSlowRangesAreFastEnoughTogether(t *testing.T) {
	size := int64(2 * spanSize)
	var cuts atomic.Int32
	serve(t, Options{}, func(n int, w http.ResponseWriter, r *http.Request) {
		var from, to int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		w.Header().Set("ETag", `"a"`)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, size))
		w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
		w.WriteHeader(http.StatusPartialContent)
		if from >= spanSize && to > from && cuts.Add(1) <= 6 {
			// Less than a kilobyte a second, and then cut: its neighbour is fast.
			trickle(w, make([]byte, 4000), 500, time.Second)
			panic(http.ErrAbortHandler)
		}
		if from < spanSize && to > from {
			trickle(w, make([]byte, to-from+1), 128<<10, time.Second)
			return
		}
		io.Copy(w, io.NewSectionReader(zeros{}, 0, to-from+1))
	}, func(t *testing.T, c *Client, _ *atomic.Int32) {
		if err := c.Download(t.Context(), "http://host/file", nopFile{}, size, GetOptions{}); err != nil {
			t.Error(err)
		}
	})
}
