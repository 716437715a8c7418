package ghrelease_test

import (
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/ghrelease"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/githubtest"
)

const token = "ghp_write"

var repo = github.Repo{Owner: "me", Name: "env"}

// fake returns a GitHub with the repository me/env, and who may write there.
func fake(t *testing.T, r githubtest.Repo) *githubtest.Server {
	t.Helper()
	gh := githubtest.New(t)
	gh.Repo("me/env", r)
	gh.Token(token, "write")
	gh.Token("ghp_read", "read")
	return gh
}

// open returns the store of a new session.
func open(t *testing.T, gh *githubtest.Server, token string, opt ghrelease.Options) *ghrelease.Store {
	t.Helper()
	return openStalling(t, gh, token, opt, 0) // as sessions do: on a busy machine nothing may come for a second
}

// openStalling is open for a session that gives up soon where nothing comes.
func openStalling(t *testing.T, gh *githubtest.Server, token string, opt ghrelease.Options, stall time.Duration) *ghrelease.Store {
	t.Helper()
	c, err := github.New(github.Options{
		APIURL: gh.URL, ServerURL: gh.URL, Token: token, Pace: -1, Patience: 3 * time.Second,
		Transfer: transfer.Options{Stall: stall, Retries: 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	if opt.Temp == "" {
		opt.Temp = t.TempDir()
	}
	return ghrelease.New(c, repo, opt)
}

func both(t *testing.T, open func(t *testing.T) cache.Store) {
	storetest.Run(t, open)
	storetest.RunVariants(t, open)
}

func TestStore(t *testing.T) {
	for name, r := range map[string]githubtest.Repo{
		"public": {}, "private": {Private: true},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T) cache.Store {
				return open(t, fake(t, r), token, ghrelease.Options{})
			})
			storetest.RunDelta(t, open(t, fake(t, r), token, ghrelease.Options{}), 360<<10)
		})
	}
}

func TestStoreInParts(t *testing.T) {
	storetest.Run(t, func(t *testing.T) cache.Store {
		return open(t, fake(t, githubtest.Repo{}), token, ghrelease.Options{PartSize: 256 << 10})
	})
	storetest.RunDelta(t, open(t, fake(t, githubtest.Repo{}), token, ghrelease.Options{PartSize: 256 << 10}), 360<<10)
}

// The suite, with each look taken by a session of its own: what counts is what
// GitHub keeps.
func TestStoreAcrossSessions(t *testing.T) {
	both(t, func(t *testing.T) cache.Store {
		gh := fake(t, githubtest.Repo{})
		gh.PageSize = 2
		return &sessions{Store: open(t, gh, token, ghrelease.Options{}), next: func() *ghrelease.Store { return open(t, gh, token, ghrelease.Options{}) }}
	})
}
