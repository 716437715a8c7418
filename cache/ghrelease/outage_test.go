package ghrelease_test

import (
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/ghrelease"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A server that could not be reached is asked again after a minute.
func TestOutagesPass(t *testing.T) {
	a, ba := blobOf("a", 1000)
	for name, do := range map[string]func(t *testing.T, s *ghrelease.Store) error{
		"Find": func(t *testing.T, s *ghrelease.Store) error {
			_, err := s.Find(t.Context(), cache.Tag("base", a.Key), []key.Key{a.Key})
			return err
		},
		"Put": func(t *testing.T, s *ghrelease.Store) error { return s.Put(t.Context(), a, ba) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int32
				c, err := github.New(github.Options{
					APIURL: "http://localhost:1", ServerURL: "http://localhost:1", Token: token, Pace: -1, Patience: 3 * time.Second,
					Transfer: transfer.Options{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
						asked.Add(1)
						return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
					})},
				})
				if err != nil {
					t.Fatal(err)
				}
				s := ghrelease.New(c, repo, ghrelease.Options{Temp: t.TempDir()})
				if err := do(t, s); err == nil {
					t.Fatal("no error")
				}
				asked.Store(0)
				time.Sleep(50 * time.Second)
				if err := do(t, s); err == nil || asked.Load() > 0 {
					t.Errorf("within a minute: %v after %d requests", err, asked.Load())
				}
				time.Sleep(12 * time.Second)
				if err := do(t, s); err == nil || asked.Load() == 0 {
					t.Errorf("after a minute: %v after %d requests", err, asked.Load())
				}
			})
		})
	}
}
