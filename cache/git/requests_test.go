package git_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/gittest"
)

// fill pushes a layer of n steps.
func fill(t testing.TB, s *git.Store, n int) cache.Manifest {
	t.Helper()
	steps := make([]cache.Descriptor, n)
	var wg sync.WaitGroup
	for i := range n {
		d, b := storetest.Step(fmt.Sprint("step ", i), strings.Repeat(fmt.Sprint("content ", i, " "), 20_000))
		steps[i] = d
		wg.Go(func() {
			defer b.Close()
			if err := s.Put(t.Context(), d, b); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	m := storetest.Layer("base", 1, steps...)
	if err := s.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// restore finds all steps of a layer, and fetches them at the same time.
func restore(t testing.TB, s *git.Store, m cache.Manifest) {
	t.Helper()
	var keys []key.Key
	for _, d := range m.Steps {
		keys = append(keys, d.Key)
	}
	found, err := s.Find(t.Context(), m.Tag(), keys)
	if err != nil || len(found) != len(keys) {
		t.Fatalf("found %d of %d, %v", len(found), len(keys), err)
	}
	var wg sync.WaitGroup
	for _, d := range m.Steps {
		wg.Go(func() {
			var b cache.Blob
			defer b.Close()
			if err := cache.Fetch(t.Context(), s, found[d.Key].Descriptor, &b); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// What the branch has already is not pushed again.
func TestNothingIsPushedTwice(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	url := repository(t, srv, "env.git")
	m := fill(t, open(t, url), 2)
	srv.Asked()
	m.Created = m.Created.Add(time.Minute)
	s := open(t, url)
	if err := s.Complete(t.Context(), m); err != nil {
		t.Error(err)
	}
	if _, err := put(t, s, "step 1", strings.Repeat("content 1 ", 20_000)); err != nil {
		t.Error(err)
	}
	for _, asked := range srv.Asked() {
		if strings.Contains(asked, "receive-pack") {
			t.Error(asked)
		}
	}
}

// A server that gives no objects by their ids gives all of the branch.
func TestServersWithoutObjectsByID(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{Old: true})
	url := repository(t, srv, "env.git")
	m := fill(t, open(t, url), 3)
	restore(t, open(t, url), m)
}

// The first blob of a layer is in the answer to the fifth request, whatever the server
// can do. What was asked for while it was fetched comes after it, all together.
func TestRequestsBeforeTheFirstBlob(t *testing.T) {
	get, post := "GET /env.git/info/refs?service=git-upload-pack", "POST /env.git/git-upload-pack"
	first := []string{get, post, post, get, post}
	for name, opt := range map[string]gittest.Options{
		"without filters":      {},
		"with a login":         {Login: true},
		"with filters":         {Filter: true},
		"of an older protocol": {Old: true, AnyID: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := gittest.New(t, opt)
			url := repository(t, srv, "env.git")
			if opt.Login {
				url = gittest.WithLogin(url)
			}
			m := fill(t, open(t, url), 12)
			srv.Asked()
			restore(t, open(t, url), m)
			if asked := srv.Asked(); len(asked) > 7 || !slices.Equal(asked[:5], first) {
				t.Errorf("%d requests:\n%s", len(asked), strings.Join(asked, "\n"))
			}
		})
	}
}
