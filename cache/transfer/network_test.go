package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The errors of a request that got no answer, as net/http returns them.
func dialError(errno syscall.Errno) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
}

func nameError(text string, known bool) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: text, Name: "host", IsNotFound: known, IsTemporary: !known}}
}

var (
	errRefused   = dialError(syscall.ECONNREFUSED)
	errNoRoute   = dialError(syscall.ENETUNREACH)
	errNoHost    = dialError(syscall.EHOSTUNREACH)
	errNoName    = nameError("no such host", true)
	errNoDNS     = nameError("dial udp 192.0.2.53:53: connect: network is unreachable", false)
	errNoAnswer  = &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	errBadCert   = &tls.CertificateVerificationError{Err: errors.New("x509: certificate signed by unknown authority")}
	errNoProxy   = &net.OpError{Op: "proxyconnect", Net: "tcp", Err: errRefused}
	errProxySays = &ProxyError{Host: "host:443", Code: http.StatusForbidden}
	errReset     = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
)

// network returns a network for a test: with a route, or without.
func network(route bool, opt NetworkOptions) *Network {
	n := NewNetwork(opt)
	n.route = func() bool { return route }
	return n
}

func answer(r *http.Request, code int) (*http.Response, error) {
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader("x")), ContentLength: 1, Request: r, Header: http.Header{}}, nil
}

// Answers that will not change are final at once; the network that is not up yet
// is waited for.
func TestHowLongAHostIsTried(t *testing.T) {
	tests := []struct {
		name     string
		err      error
		noRoute  bool          // the machine has no route
		up       bool          // another host has answered before
		comes    time.Duration // when the host answers; 0 for never
		patience time.Duration // of the request
		ok       bool
		tries    int           // at most
		most     time.Duration // virtual
	}{
		{name: "no such host, and there is a route", err: errNoName, tries: 1},
		{name: "no such host, and another answered", err: errNoName, noRoute: true, up: true, tries: 1},
		{name: "no such host from a name server that has no network either", err: errNoName, noRoute: true, comes: 25 * time.Second, ok: true, most: 28 * time.Second},
		{name: "a bad certificate", err: errBadCert, tries: 1},
		{name: "a proxy that refuses the host", err: errProxySays, tries: 1},
		{name: "connection refused", err: errRefused, tries: 3, most: time.Second},
		{name: "connection refused by a service that restarts", err: errRefused, comes: 100 * time.Millisecond, ok: true, tries: 3, most: time.Second},
		{name: "no route to this one host", err: errNoHost, tries: 3, most: time.Second},
		{name: "a local firewall", err: dialError(syscall.EPERM), tries: 3, most: time.Second},
		{name: "no route yet", err: errNoRoute, noRoute: true, comes: 25 * time.Second, ok: true, most: 28 * time.Second},
		{name: "no name server yet", err: errNoDNS, comes: 25 * time.Second, ok: true, most: 28 * time.Second},
		{name: "no proxy yet", err: errNoProxy, comes: 25 * time.Second, ok: true, most: 28 * time.Second},
		{name: "no route ever", err: errNoRoute, noRoute: true, most: 30 * time.Second},
		{name: "no name server ever", err: errNoDNS, most: 30 * time.Second},
		{name: "no answer to a connect ever", err: errNoAnswer, most: 30 * time.Second},
		{name: "no route, and something to fall back on", err: errNoRoute, noRoute: true, patience: 3 * time.Second, most: 3 * time.Second},
		{name: "no name server, and another host answered", err: errNoDNS, up: true, tries: 6, most: 15 * time.Second},
		{name: "no answer to a connect, and another host answered", err: errNoAnswer, up: true, tries: 6, most: 15 * time.Second},
		{name: "reset by a host that never answered", err: errReset, tries: 4, most: 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var tries atomic.Int32
				c := New(Options{
					Network: network(!tt.noRoute, NetworkOptions{}),
					Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
						if r.URL.Host == "other" {
							return answer(r, 200)
						}
						tries.Add(1)
						if tt.comes > 0 && time.Since(start) >= tt.comes {
							return answer(r, 200)
						}
						return nil, tt.err
					}),
				})
				if tt.up {
					if _, err := c.Get(t.Context(), "http://other/", io.Discard, GetOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				get := func() error {
					_, err := c.Get(t.Context(), "http://host/file", io.Discard, GetOptions{Patience: tt.patience})
					return err
				}
				err := get()
				if (err == nil) != tt.ok || err != nil && !errors.Is(err, tt.err) {
					t.Errorf("error = %v", err)
				}
				if n := int(tries.Load()); tt.tries > 0 && n > tt.tries {
					t.Errorf("%d tries, want at most %d", n, tt.tries)
				}
				if took := time.Since(start); took > tt.most {
					t.Errorf("took %v, want at most %v", took, tt.most)
				}
				if tt.ok {
					return
				}
				if tt.err != errReset && !Unreachable(err) {
					t.Errorf("Unreachable(%v) = false", err)
				}
				if tt.patience > 0 {
					return // others may wait longer
				}
				// What is known to be in vain is not tried again.
				before, again := tries.Load(), time.Now()
				if err := get(); !errors.Is(err, tt.err) || tries.Load() != before || time.Since(again) > 0 {
					t.Errorf("again: %v after %d tries and %v", err, tries.Load()-before, time.Since(again))
				}
			})
		})
	}
}

// All hosts and callers of a process wait for the network together, once, and
// one of them says so.
func TestOneWaitForTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var said []string
		start := time.Now()
		n := network(true, NetworkOptions{Waiting: func(text string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, fmt.Sprintf("%v: %s", time.Since(start), text))
		}})
		var asked atomic.Int32
		opt := Options{Network: n, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			return nil, &net.DNSError{Err: "server misbehaving", Name: r.URL.Host, IsTemporary: true}
		})}
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				_, err := New(opt).Get(t.Context(), fmt.Sprintf("http://host%d.example.com/", i), io.Discard, GetOptions{})
				if err == nil || !strings.Contains(err.Error(), "no host answered within 30s") {
					t.Errorf("error = %v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("waited %v", took)
		}
		asked.Store(0)
		began := time.Now()
		for i := range 5 {
			if _, err := New(opt).Get(t.Context(), fmt.Sprintf("http://late%d.example.com/", i), io.Discard, GetOptions{}); err == nil {
				t.Error("no error")
			}
		}
		if took := time.Since(began); took > 0 || asked.Load() != 5 {
			t.Errorf("hosts that came later waited %v, and were asked %d times", took, asked.Load())
		}
		synctest.Wait()
		if len(said) != 1 || !strings.HasPrefix(said[0], "2s: the network: cannot resolve host") || !strings.HasSuffix(said[0], ".example.com (server misbehaving)") {
			t.Errorf("said: %q", said)
		}
	})
}

// A connect that hangs is silent no longer than a failing one.
func TestWaitingIsSaidWhileAConnectHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var said []string
		c := New(Options{
			Network: network(true, NetworkOptions{Waiting: func(text string) { said = append(said, fmt.Sprint(time.Since(start), " ", text)) }}),
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				select {
				case <-time.After(8 * time.Second):
					return nil, errNoAnswer
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			}),
		})
		_, err := c.Get(t.Context(), "http://example.com/", io.Discard, GetOptions{})
		if took := time.Since(start); err == nil || took < 24*time.Second || took > 38*time.Second {
			t.Errorf("error = %v after %v", err, took)
		}
		synctest.Wait()
		if len(said) != 1 || said[0] != "2s the network: no answer from example.com yet" {
			t.Errorf("said: %q", said)
		}
	})
}

// A slow server is not taken for a network that is not up.
func TestWaitingIsNotSaidOfASlowServer(t *testing.T) {
	opt := Options{Network: network(true, NetworkOptions{Waiting: func(text string) { t.Errorf("said: %s", text) }})}
	serve(t, opt, func(_ int, w http.ResponseWriter, r *http.Request) {
		time.Sleep(9 * time.Second)
		w.Write([]byte("x"))
	}, func(t *testing.T, c *Client, _ *atomic.Int32) {
		if _, err := c.Get(t.Context(), "http://host/", io.Discard, GetOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// What was given up for want of a network is asked again when there is one.
func TestHostsAreAskedAgainWhenTheNetworkComesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false
		c := New(Options{Network: network(false, NetworkOptions{}), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if !up {
				return nil, errNoRoute
			}
			return answer(r, 200)
		})})
		get := func(host string) error {
			_, err := c.Get(t.Context(), "http://"+host+"/", io.Discard, GetOptions{})
			return err
		}
		if err := get("a"); err == nil {
			t.Fatal("no error")
		}
		up = true
		if err := get("b"); err != nil {
			t.Error(err)
		}
		if err := get("a"); err != nil {
			t.Error(err)
		}
	})
}

func TestOfflineAsksNobody(t *testing.T) {
	c := New(Options{
		Network:   NewNetwork(NetworkOptions{Offline: true}),
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) { t.Errorf("%s was asked", r.URL); return answer(r, 200) }),
	})
	if _, err := c.Get(t.Context(), "http://example.com/", io.Discard, GetOptions{}); !errors.Is(err, ErrOffline) {
		t.Errorf("Get: %v", err)
	}
	if err := c.Download(t.Context(), "http://127.0.0.1/", nopFile{}, 100<<20, GetOptions{}); !errors.Is(err, ErrOffline) {
		t.Errorf("Download: %v", err)
	}
	req, _ := http.NewRequest(http.MethodPost, "http://example.com/", strings.NewReader("body"))
	if err := c.Retry(t.Context(), 0, func() error { _, err := c.Send(t.Context(), req); return err }); !errors.Is(err, ErrOffline) {
		t.Errorf("Send: %v", err)
	}
}

type nopFile struct{ discardAt }

func (nopFile) Truncate(int64) error { return nil }

// Limits on requests are waited for, and an address that expired is replaced;
// neither is a refusal.
func TestForbiddenIsFinalButForLimitsAndOldAddresses(t *testing.T) {
	tests := []struct {
		name     string
		answer   func(n int, w http.ResponseWriter, r *http.Request)
		ok       bool
		requests int32
	}{
		{"403", func(_ int, w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, false, 1},
		{"401", func(_ int, w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }, false, 1},
		{"a limit that ends soon", func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				w.Header().Set("Retry-After", "5")
				w.WriteHeader(403)
			}
		}, true, 2},
		{"a limit that ends at its reset", func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				w.Header().Set("X-RateLimit-Remaining", "0")
				w.Header().Set("X-RateLimit-Reset", fmt.Sprint(time.Now().Add(20*time.Second).Unix()))
				w.WriteHeader(403)
			}
		}, true, 2},
		{"an address that expired", func(n int, w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/file":
				http.Redirect(w, r, fmt.Sprintf("/signed?n=%d", n), http.StatusFound)
			case r.URL.RawQuery == "n=1":
				w.WriteHeader(403)
			}
		}, true, 4},
		{"a place that refuses every address", func(n int, w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/file" {
				http.Redirect(w, r, fmt.Sprintf("/signed?n=%d", n), http.StatusFound)
				return
			}
			w.WriteHeader(403)
		}, false, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			serve(t, Options{}, tt.answer, func(t *testing.T, c *Client, requests *atomic.Int32) {
				_, err := c.Get(t.Context(), "http://host/file", io.Discard, GetOptions{})
				if (err == nil) != tt.ok || requests.Load() != tt.requests {
					t.Errorf("error = %v after %d requests, want %d", err, requests.Load(), tt.requests)
				}
			})
		})
	}
}

// Every wait ends with its context, whatever is waited for.
func TestEveryWaitEndsWithItsContext(t *testing.T) {
	hang := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	fail := func(err error) func(r *http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) { return nil, err }
	}
	for name, answer := range map[string]func(r *http.Request) (*http.Response, error){
		"connect": hang,
		"body": func(r *http.Request) (*http.Response, error) {
			pr, pw := io.Pipe()
			context.AfterFunc(r.Context(), func() { pw.CloseWithError(r.Context().Err()) })
			return &http.Response{StatusCode: 200, Body: pr, ContentLength: 100, Request: r, Header: http.Header{}}, nil
		},
		"the network":   fail(errNoDNS),
		"backoff":       fail(errReset),
		"a restart":     fail(errRefused),
		"a busy server": func(r *http.Request) (*http.Response, error) { return answer(r, 503) },
		"a rate limit": func(r *http.Request) (*http.Response, error) {
			resp, err := answer(r, 429)
			resp.Header.Set("Retry-After", "100")
			return resp, err
		},
	} {
		for what, do := range map[string]func(ctx context.Context, c *Client) error{
			"get": func(ctx context.Context, c *Client) error {
				_, err := c.Get(ctx, "http://host/", io.Discard, GetOptions{})
				return err
			},
			"download": func(ctx context.Context, c *Client) error {
				return c.Download(ctx, "http://host/", nopFile{}, 100<<20, GetOptions{})
			},
			"send": func(ctx context.Context, c *Client) error {
				return c.Retry(ctx, 0, func() error {
					req, _ := http.NewRequest(http.MethodPost, "http://host/", &endless{})
					a, err := c.Send(ctx, req)
					if err == nil {
						err = &StatusError{Code: a.Code, RetryAfter: RetryAfter(a.Header, time.Now())}
					}
					return err
				})
			},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					reason := errors.New("enough")
					ctx, cancel := context.WithCancelCause(t.Context())
					start := time.Now()
					time.AfterFunc(time.Second/10, func() { cancel(reason) })
					err := do(ctx, New(Options{Network: network(true, NetworkOptions{}), Transport: roundTrip(answer)}))
					if !errors.Is(err, reason) || time.Since(start) != time.Second/10 {
						t.Errorf("error = %v after %v", err, time.Since(start))
					}
				})
			})
		}
	}
}
