package git_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/storetest/faults"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/gittest"
	"github.com/clayer/clayer/internal/rounds"
)

// TestFaults runs the suite against git's own server. A few requests of each session are
// struck; more in the long tier.
func TestFaults(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	var n atomic.Int32
	faults.Run(t, func(t *testing.T) faults.Service {
		name := fmt.Sprintf("env%d.git", n.Add(1))
		repository(t, srv, name)
		at := func(t testing.TB, url string, opt transfer.Options) cache.Store {
			o := options(t)
			o.Transfer, o.Stall = opt, 2*time.Second
			return git.New(parse(t, url+"/"+name), o)
		}
		return faults.Service{
			Handler: srv,
			OpenAt:  at,
			Expired: func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) },
			Full:    func(w http.ResponseWriter) { w.WriteHeader(http.StatusInsufficientStorage) },
			Writes:  func(req *http.Request) bool { return strings.Contains(req.URL.RequestURI(), "git-receive-pack") },
			Evict: func(cache.Descriptor) {
				other := at(t, srv.URL, transfer.Options{})
				list, err := other.List(t.Context())
				if err == nil {
					_, err = other.Remove(t.Context(), list)
				}
				if err == nil {
					err = gittest.Git("-C", filepath.Join(srv.Dir, name), "gc", "-q", "--prune=now")
				}
				if err != nil {
					t.Error(err)
				}
			},
			Every: rounds.Of(40, 15, 4),
		}
	})
}
