package git_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/gittest"
)

// quick is how tests send: a failure shows within a second or two.
var quick = transfer.Options{Retries: 2}

func parse(t testing.TB, name string) git.Address {
	t.Helper()
	a, err := git.ParseAddress(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// open returns the store of a new session.
func open(t testing.TB, url string) *git.Store {
	t.Helper()
	return git.New(parse(t, url), options(t))
}

func options(t testing.TB) git.Options {
	return git.Options{Temp: t.TempDir(), Dir: t.TempDir(), Transfer: quick, PushRate: 1000}
}

func repository(t testing.TB, s *gittest.Server, name string) string {
	t.Helper()
	url, err := s.Repository(name)
	if err != nil {
		t.Fatal(err)
	}
	return url
}

func TestStore(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{Login: true})
	var n atomic.Int32
	storetest.Run(t, func(t *testing.T) cache.Store {
		return open(t, gittest.WithLogin(repository(t, srv, fmt.Sprintf("env%d.git", n.Add(1)))))
	})
}
