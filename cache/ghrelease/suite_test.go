package ghrelease_test

import (
	"net/http"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/ghrelease"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/storetest/faults"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/githubtest"
)

func TestFaults(t *testing.T) {
	temp := t.TempDir()
	faults.Run(t, func(t *testing.T) faults.Service {
		gh := fake(t, githubtest.Repo{})
		return faults.Service{
			Handler: gh.Handler(),
			Open: func(t testing.TB, opt transfer.Options) cache.Store {
				c, err := github.New(github.Options{APIURL: gh.URL, ServerURL: gh.URL, Token: token, Pace: -1, Transfer: opt})
				if err != nil {
					t.Fatal(err)
				}
				return ghrelease.New(c, repo, ghrelease.Options{Temp: temp})
			},
			Expired: func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) },
			Full:    func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) },
			Most:    40,
		}
	})
}
