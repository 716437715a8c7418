package git_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
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

func TestVariants(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	var n atomic.Int32
	storetest.RunVariants(t, func(t *testing.T) cache.Store {
		return open(t, repository(t, srv, fmt.Sprintf("env%d.git", n.Add(1))))
	})
}

// TestVariantsOfSeveralSessions has sessions push snapshots of one step at the same time,
// which each sees for the first time: none takes another's file.
func TestVariantsOfSeveralSessions(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	url := repository(t, srv, "env.git")
	var all []cache.Descriptor
	var wg sync.WaitGroup
	for i := range cache.MaxVariants {
		d, b := storetest.Variant("a", fmt.Sprint("content ", i), fmt.Sprint("lib", i))
		all = append(all, d)
		s := open(t, url)
		if _, err := s.List(t.Context()); err != nil { // it has seen the branch before
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := s.Put(context.Background(), d, b); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := open(t, url)
	for i, d := range all {
		if got := storetest.Read(t, s, d); got != fmt.Sprint("content ", i) {
			t.Errorf("%d: %q", i, got)
		}
	}
	found, err := s.Variants(t.Context(), "", []key.Key{all[0].Key})
	if err != nil || len(found[all[0].Key]) != cache.MaxVariants {
		t.Errorf("%d variants, %v, want %d", len(found[all[0].Key]), err, cache.MaxVariants)
	}
}

// TestVariantWithoutTheFirst has a branch whose first snapshot of a step is not to be read:
// the others are of use, and the next one takes its place.
func TestVariantWithoutTheFirst(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	url := repository(t, srv, "env.git")
	a, blobA := storetest.Variant("a", "one", "libone")
	b, blobB := storetest.Variant("a", "two", "libtwo")
	c, blobC := storetest.Variant("a", "three", "libthree")
	s := open(t, url)
	if err := errors.Join(s.Put(t.Context(), a, blobA), s.Put(t.Context(), b, blobB)); err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	hex := a.Key.String()
	command(t, "clone", "-q", "--branch", git.DefaultBranch, url, work)
	if err := os.WriteFile(filepath.Join(work, "keys", hex[:2], hex+".json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "-C", work, "-c", "user.name=me", "-c", "user.email=me@localhost", "commit", "-q", "-a", "-m", "damage")
	command(t, "-C", work, "push", "-q", "origin", git.DefaultBranch)

	s = open(t, url)
	found, err := s.Find(t.Context(), "", []key.Key{a.Key})
	if err != nil || found[a.Key].Digest != b.Digest {
		t.Fatalf("found %s, %v, want the second", found[a.Key].Digest, err)
	}
	if err := s.Put(t.Context(), c, blobC); err != nil {
		t.Fatal(err)
	}
	list, err := open(t, url).Variants(t.Context(), "", []key.Key{a.Key})
	if got := list[a.Key]; err != nil || len(got) != 2 || got[0].Digest != c.Digest || got[1].Digest != b.Digest {
		t.Errorf("%v, %v, want the third and the second", got, err)
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{Login: true})
	var n atomic.Int32
	storetest.Run(t, func(t *testing.T) cache.Store {
		return open(t, gittest.WithLogin(repository(t, srv, fmt.Sprintf("env%d.git", n.Add(1)))))
	})
}

// TestSHA256 stores in repositories whose ids are of SHA-256: an empty one, and one that
// has a branch.
func TestSHA256(t *testing.T) {
	t.Parallel()
	for _, filter := range []bool{false, true} {
		srv := gittest.New(t, gittest.Options{Filter: filter})
		url := repository(t, srv, "env.git")
		dir := filepath.Join(srv.Dir, "env.git")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		command(t, "init", "-q", "--bare", "--object-format=sha256", "--template=", dir)
		for _, kv := range [][2]string{{"http.receivepack", "true"}, {"uploadpack.allowFilter", fmt.Sprint(filter)}} {
			command(t, "-C", dir, "config", kv[0], kv[1])
		}
		s := open(t, url)
		m := fill(t, s, 3)
		restore(t, open(t, url), m)
		other := open(t, url)
		d, err := put(t, other, "more", "content")
		if err != nil {
			t.Fatal(err)
		}
		if got := storetest.Read(t, open(t, url), d); got != "content" {
			t.Errorf("%q", got)
		}
		if _, err := open(t, url).Remove(t.Context(), []cache.Manifest{m}); err != nil {
			t.Fatal(err)
		}
		if list, err := open(t, url).List(t.Context()); err != nil || len(list) > 0 {
			t.Errorf("%v, %v", list, err)
		}
		command(t, "-C", dir, "fsck", "--strict")
	}
}
