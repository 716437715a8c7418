package oci_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/internal/ocitest"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// status answers with a status and nothing else.
func status(code int, r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// A registry that could not be reached is asked again after a minute; one that
// refuses is not.
func TestOutagesPass(t *testing.T) {
	gone := func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	forbidden := func(r *http.Request) (*http.Response, error) { return status(http.StatusForbidden, r) }
	for name, tt := range map[string]struct {
		first roundTrip
		again bool
	}{
		"nobody listens":            {gone, true},
		"nobody listens for tokens": {tokens(gone), true},
		"refused":                   {forbidden, false},
		"no tokens are given out":   {tokens(forbidden), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int32
				up := false
				opt := quick
				opt.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
					asked.Add(1)
					if up {
						return status(http.StatusNotFound, r)
					}
					return tt.first(r)
				})
				s := oci.New(parse(t, "localhost:1/me/env"), oci.Options{Temp: t.TempDir(), Transfer: opt})
				if err := find(s); err == nil {
					t.Fatal("no error")
				}
				asked.Store(0)
				up = true
				if err := find(s); err == nil || asked.Load() > 0 {
					t.Errorf("right after: %v after %d requests", err, asked.Load())
				}
				time.Sleep(61 * time.Second)
				if err := find(s); (err == nil) != tt.again {
					t.Errorf("after a minute: %v", err)
				}
			})
		})
	}
}

// tokens returns a registry that requires tokens of another host, which answers
// as given.
func tokens(answer roundTrip) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/token" {
			return answer(r)
		}
		resp, err := status(http.StatusUnauthorized, r)
		resp.Header.Set("Www-Authenticate", `Bearer realm="http://localhost:2/token",service="s"`)
		return resp, err
	}
}

// Storage that limits requests refuses nothing.
func TestStorageThatLimitsRequests(t *testing.T) {
	for _, header := range []http.Header{{"Retry-After": {"600"}}, {"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"99999999999"}}} {
		r := ocitest.New(t, ocitest.Options{})
		d, blob := storetest.Step("a", strings.Repeat("content", 100))
		if err := open(t, r.Host+"/me/env", "", "").Put(context.Background(), d, blob); err != nil {
			t.Fatal(err)
		}
		storage := serve(t, func(w http.ResponseWriter, req *http.Request) {
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(http.StatusForbidden)
		})
		s := open(t, before(t, r, func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, "/blobs/"+d.Digest.String()) {
				return false
			}
			http.Redirect(w, req, "http://"+storage+"/x", http.StatusTemporaryRedirect)
			return true
		})+"/me/env", "", "")
		if err := s.Fetch(t.Context(), d, &cache.Blob{}); err == nil || !strings.Contains(err.Error(), storage+" answers 403") {
			t.Fatalf("Open: %v", err)
		}
		if err := find(s); err != nil {
			t.Errorf("Find: %v", err)
		}
	}
}
