package ghrelease_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/ghrelease"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/githubtest"
)

func blobOf(name string, n int) (cache.Descriptor, *cache.Blob) {
	data := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte{byte(len(name)), name[0]})
	rnd.Read(data)
	d, _ := storetest.Step(name, "")
	d.Digest, d.Size = digest.FromBytes(data), int64(n)
	return d, storetest.Blob(string(data))
}

func mustPut(t *testing.T, s cache.Store, d cache.Descriptor, b *cache.Blob) {
	t.Helper()
	if err := s.Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
}

func mustComplete(t *testing.T, s cache.Store, m cache.Manifest) {
	t.Helper()
	if err := s.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// requires checks that a new session, without a token unless one is given, finds
// the layer and reads its blobs as they were put.
func requires(t *testing.T, gh *githubtest.Server, token string, m cache.Manifest) {
	t.Helper()
	s := open(t, gh, token, ghrelease.Options{})
	var keys []key.Key
	for _, d := range m.Steps {
		keys = append(keys, d.Key)
	}
	found, err := s.Find(t.Context(), m.Tag(), keys)
	if err != nil || len(found) != len(keys) {
		t.Fatalf("%s: found %d of %d, %v", m.Tag(), len(found), len(keys), err)
	}
	for _, d := range m.Steps {
		f, err := storetest.Open(t, s, found[d.Key].Descriptor)
		if err != nil {
			t.Errorf("%s: %v", d.Text, err)
			continue
		}
		f.Close()
		if found[d.Key].Digest != d.Digest {
			t.Errorf("%s: other bytes", d.Text)
		}
	}
}

func count(asked []string, text string) (n int) {
	for _, a := range asked {
		if strings.Contains(a, text) {
			n++
		}
	}
	return n
}

func TestLargeSnapshotsAreSplitAndJoined(t *testing.T) {
	gh := fake(t, githubtest.Repo{})
	gh.BlobLimit = 1 << 20 // what GitHub refuses, of 2 GiB
	d, b := blobOf("large", 5<<20+17)
	s := open(t, gh, token, ghrelease.Options{PartSize: 1<<20 - 1})
	mustPut(t, s, d, b)
	m := storetest.Layer("base", 0, d)
	mustComplete(t, s, m)
	list := gh.Releases("me/env")
	if n := strings.Count(list[0], ".tar.zst.00"); n != 6 {
		t.Errorf("%d parts, want 6: %v", n, list)
	}
	requires(t, gh, "", m)

	// A part that is corrupt is a miss, not a root.
	gh.Corrupt("me/env", ".004")
	far := open(t, gh, "", ghrelease.Options{})
	if _, err := far.Find(t.Context(), m.Tag(), []key.Key{d.Key}); err != nil {
		t.Fatal(err)
	}
	if _, err := storetest.Open(t, far, d); !errors.Is(err, cache.ErrNotCached) {
		t.Errorf("of a corrupt part: %v", err)
	}
}

func TestMoreThanAThousandFiles(t *testing.T) {
	gh := fake(t, githubtest.Repo{})
	a, ba := blobOf("a", 4000)
	b, bb := blobOf("b", 4000)
	s := open(t, gh, token, ghrelease.Options{PartSize: 8}) // 500 files each, and one for the layer
	mustPut(t, s, a, ba)
	mustPut(t, s, b, bb)
	c, bc := blobOf("c", 32)
	mustPut(t, s, c, bc)
	m := storetest.Layer("base", 0, a, b, c)
	mustComplete(t, s, m)
	if n := len(gh.Releases("me/env")); n < 2 {
		t.Errorf("%d releases", n)
	}
	requires(t, gh, "", m)
}

func TestUploadsThatGoWrong(t *testing.T) {
	blob := func() (cache.Descriptor, *cache.Blob) { return blobOf("a", 10_000) }
	tests := []struct {
		name    string
		fault   githubtest.Fault
		uploads int // that are sent
	}{
		{"502 that had succeeded", githubtest.Fault{Done: true, Status: 502}, 1},
		{"504 that had succeeded", githubtest.Fault{Done: true, Status: 504}, 1},
		{"cut, but it had succeeded", githubtest.Fault{Done: true}, 1},
		{"502", githubtest.Fault{Status: 502}, 2},
		{"502 that leaves a starter", githubtest.Fault{Starter: true, Status: 502}, 2},
		{"cut, and a starter is left", githubtest.Fault{Starter: true}, 2},
		{"500 for a while", githubtest.Fault{Status: 500, Times: 3}, 4},
		{"no answer for too long", githubtest.Fault{Status: 503, Stall: 100 * time.Millisecond}, 2},
		{"secondary limit", githubtest.Fault{Status: 403, Header: http.Header{"Retry-After": {"1"}}, Body: `{"message":"You have exceeded a secondary rate limit"}`}, 2},
		{"429", githubtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"1"}}, Body: `{"message":"slow down"}`}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			gh := fake(t, githubtest.Repo{})
			tt.fault.Match = "POST /uploads"
			gh.Fail(tt.fault)
			s := open(t, gh, token, ghrelease.Options{})
			d, b := blob()
			mustPut(t, s, d, b)
			if n := count(gh.Asked(), "POST /uploads"); n != tt.uploads {
				t.Errorf("%d uploads, want %d", n, tt.uploads)
			}
			m := storetest.Layer("base", 0, d)
			mustComplete(t, s, m)
			if list := gh.Releases("me/env"); len(list) != 1 || strings.Contains(list[0], "starter") {
				t.Errorf("releases: %v", list)
			}
			requires(t, gh, "", m)
		})
	}
}

// An answer that is lost makes no second release.
func TestOtherRequestsThatGoWrong(t *testing.T) {
	for _, f := range []githubtest.Fault{
		{Match: "POST /repos/me/env/releases", Done: true, Status: 502},
		{Match: "POST /repos/me/env/releases", Done: true},
		{Match: "PATCH", Done: true, Status: 502},
		{Match: "PATCH", Done: true, Status: 502, After: 1},
	} {
		t.Run(fmt.Sprint(f.Match, f.Status, f.Done), func(t *testing.T) {
			t.Parallel()
			gh := fake(t, githubtest.Repo{})
			gh.Fail(f)
			s := open(t, gh, token, ghrelease.Options{})
			d, b := blobOf("a", 10_000)
			mustPut(t, s, d, b)
			m := storetest.Layer("base", 0, d)
			mustComplete(t, s, m)
			if list := gh.Releases("me/env"); len(list) != 1 {
				t.Errorf("releases: %v", list)
			}
			requires(t, gh, "", m)
		})
	}
}

func TestTwoSessionsAtOnce(t *testing.T) {
	a, ba := blobOf("a", 1000)
	b, bb := blobOf("b", 1000)
	m := storetest.Layer("base", 0, a, b)
	t.Run("each with a draft of its own", func(t *testing.T) {
		gh := fake(t, githubtest.Repo{})
		one, two := open(t, gh, token, ghrelease.Options{}), open(t, gh, token, ghrelease.Options{})
		none, _ := storetest.Step("none", "")
		for _, s := range []cache.Store{one, two} { // both have looked: nothing is there
			if _, err := s.Find(t.Context(), m.Tag(), []key.Key{none.Key}); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range []cache.Store{one, two} {
			mustPut(t, s, a, ba)
			mustPut(t, s, b, bb)
		}
		if list := gh.Releases("me/env"); len(list) != 2 {
			t.Errorf("drafts: %v", list)
		}
		mustComplete(t, one, m)
		mustComplete(t, two, m)
		if list := gh.Releases("me/env"); len(list) != 1 || strings.Contains(list[0], "draft") {
			t.Errorf("releases: %v, want one", list)
		}
		requires(t, gh, "", m)
	})
	t.Run("in one draft", func(t *testing.T) {
		gh := fake(t, githubtest.Repo{})
		one := open(t, gh, token, ghrelease.Options{})
		mustPut(t, one, a, ba)
		two := open(t, gh, token, ghrelease.Options{})
		if _, err := two.Find(t.Context(), m.Tag(), []key.Key{b.Key}); err != nil {
			t.Fatal(err)
		}
		mustPut(t, one, b, bb)
		mustPut(t, two, b, bb) // 422 already_exists: the same bytes
		mustComplete(t, two, m)
		mustComplete(t, one, m)
		if list := gh.Releases("me/env"); len(list) != 1 {
			t.Errorf("releases: %v", list)
		}
		requires(t, gh, "", m)
	})
	t.Run("one publishes while the other uploads", func(t *testing.T) {
		for _, immutable := range []bool{false, true} {
			gh := fake(t, githubtest.Repo{Immutable: immutable})
			one := open(t, gh, token, ghrelease.Options{})
			mustPut(t, one, a, ba)
			two := open(t, gh, token, ghrelease.Options{})
			if _, err := two.Find(t.Context(), m.Tag(), []key.Key{b.Key}); err != nil {
				t.Fatal(err)
			}
			mustComplete(t, one, storetest.Layer("base", 0, a))
			mustPut(t, two, b, bb)
			mustComplete(t, two, m)
			requires(t, gh, "", m)
			requires(t, gh, "", storetest.Layer("base", 0, a))
		}
	})
	t.Run("all at the same time", func(t *testing.T) {
		gh := fake(t, githubtest.Repo{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				s := open(t, gh, token, ghrelease.Options{})
				for _, d := range []cache.Descriptor{a, b} {
					blob := ba
					if d.Key == b.Key {
						blob = bb
					}
					if err := s.Put(t.Context(), d, blob); err != nil {
						t.Error(err)
					}
				}
				if err := s.Complete(t.Context(), m); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		requires(t, gh, "", m)
	})
}

func TestOtherBytesOfTheSameStep(t *testing.T) {
	// A step that was built again on purpose, and not to the same bytes: the last wins.
	for _, immutable := range []bool{false, true} {
		gh := fake(t, githubtest.Repo{Immutable: immutable})
		one := open(t, gh, token, ghrelease.Options{})
		a, ba := blobOf("a", 1000)
		mustPut(t, one, a, ba)
		mustComplete(t, one, storetest.Layer("base", 0, a))
		other, bo := blobOf("b", 900)
		other.Key, other.Created, other.Replaces = a.Key, a.Created.Add(time.Hour), cache.AllVariants
		two := open(t, gh, token, ghrelease.Options{})
		mustPut(t, two, other, bo)
		m := storetest.Layer("base", 60, other)
		mustComplete(t, two, m)
		if list := gh.Releases("me/env"); len(list) != 2 || !strings.Contains(list[0]+list[1], ".2:") {
			t.Errorf("releases: %v, want one with the next suffix", list)
		}
		if immutable {
			continue // the plain tag leads to the first, for ever
		}
		requires(t, gh, "", m)
	}
}

func TestInterruptedSessionIsTakenUp(t *testing.T) {
	for name, r := range map[string]githubtest.Repo{"public": {}, "private": {Private: true}, "immutable": {Immutable: true}} {
		t.Run(name, func(t *testing.T) {
			gh := fake(t, r)
			a, ba := blobOf("a", 1000)
			b, bb := blobOf("b", 1000)
			killed := open(t, gh, token, ghrelease.Options{})
			mustPut(t, killed, a, ba)
			// It dies while b is on its way.
			ctx, kill := context.WithCancel(t.Context())
			gh.Fail(githubtest.Fault{Match: "POST /uploads", Starter: true, Do: kill})
			if err := killed.Put(ctx, b, bb); !errors.Is(err, context.Canceled) {
				t.Errorf("error = %v", err)
			}
			if list := gh.Releases("me/env"); !strings.Contains(list[0], "starter") {
				t.Errorf("releases: %v; a starter was to be left", list)
			}
			// Someone else's reading sees nothing half done.
			far := open(t, gh, "ghp_read", ghrelease.Options{})
			if found, err := far.Find(t.Context(), cache.Tag("base", b.Key), []key.Key{a.Key, b.Key}); err != nil || len(found) != 0 {
				t.Errorf("a reader finds %v, %v", found, err)
			}
			gh.Asked()
			next := open(t, gh, token, ghrelease.Options{})
			m := storetest.Layer("base", 0, a, b)
			found, err := next.Find(t.Context(), m.Tag(), []key.Key{a.Key, b.Key})
			if err != nil || len(found) != 1 || found[a.Key].Digest != a.Digest {
				t.Fatalf("found %v, %v; want the step that arrived", found, err)
			}
			f, err := storetest.Open(t, next, found[a.Key].Descriptor)
			if err != nil {
				t.Fatalf("of a draft: %v", err)
			}
			f.Close()
			if list, err := next.Interrupted(t.Context()); err != nil || len(list) != 1 || len(list[0].Steps) != 1 {
				t.Errorf("interrupted: %v, %v", list, err)
			}
			mustPut(t, next, a, ba)
			mustPut(t, next, b, bb)
			mustComplete(t, next, m)
			if n := count(gh.Asked(), "POST /uploads"); n != 2+1 { // b, again after its starter, and the manifest
				t.Errorf("%d uploads", n)
			}
			if list := gh.Releases("me/env"); len(list) != 1 || strings.Contains(list[0], "starter") || strings.Contains(list[0], "draft") {
				t.Errorf("releases: %v", list)
			}
			requires(t, gh, token, m)
		})
	}
}

func TestTagsOfImmutableReleasesAreNotFreeAgain(t *testing.T) {
	gh := fake(t, githubtest.Repo{Immutable: true})
	a, ba := blobOf("a", 1000)
	m := storetest.Layer("base", 0, a)
	s := open(t, gh, token, ghrelease.Options{})
	mustPut(t, s, a, ba)
	mustComplete(t, s, m)
	if n, err := s.Remove(t.Context(), []cache.Manifest{m}); err != nil || n != 1000 {
		t.Errorf("Remove: %d, %v", n, err)
	}
	again := open(t, gh, token, ghrelease.Options{})
	mustPut(t, again, a, ba)
	mustComplete(t, again, m)
	if list := gh.Releases("me/env"); len(list) != 1 || !strings.HasPrefix(list[0], m.Tag()+".2:") {
		t.Errorf("releases: %v", list)
	}
	requires(t, gh, "", m)
}

// A release that is removed between Find and Open: its step is read from another that
// has it.
func TestReleaseThatIsGoneSinceItWasFound(t *testing.T) {
	gh := fake(t, githubtest.Repo{})
	a, ba := blobOf("a", 1000)
	b, bb := blobOf("b", 1000)
	one, two := open(t, gh, token, ghrelease.Options{}), open(t, gh, token, ghrelease.Options{})
	first, second := storetest.Layer("base", 0, a), storetest.Layer("base", 1, a, b)
	if found, err := two.Find(t.Context(), second.Tag(), []key.Key{a.Key}); err != nil || len(found) > 0 {
		t.Fatal(found, err) // it knows of nothing that the other makes
	}
	mustPut(t, one, a, ba)
	mustComplete(t, one, first)
	mustPut(t, two, a, ba)
	mustPut(t, two, b, bb)
	mustComplete(t, two, second)
	for _, with := range []string{"", "ghp_read"} {
		far := open(t, gh, with, ghrelease.Options{})
		found, err := far.Find(t.Context(), first.Tag(), []key.Key{a.Key})
		if err != nil || found[a.Key].Digest != a.Digest {
			t.Fatalf("found %v, %v", found, err)
		}
		gh.Fail(githubtest.Fault{Match: "GET /me/env/releases/download/" + first.Tag(), Status: 404, Times: -1})
		f, err := storetest.Open(t, far, a)
		if err != nil {
			t.Fatalf("with %q: %v", with, err)
		}
		f.Close()
		gh.Heal()
	}
}

// A layer with a step that was never brought here can't be whole; finding that out
// costs no request, however often.
func TestCompleteOfWhatIsNotHere(t *testing.T) {
	gh := fake(t, githubtest.Repo{})
	s := open(t, gh, token, ghrelease.Options{})
	a, _ := blobOf("a", 1000)
	b, bb := blobOf("b", 1000)
	mustPut(t, s, b, bb)
	gh.Asked()
	for range 2 {
		if err := s.Complete(t.Context(), storetest.Layer("base", 0, a, b)); !errors.Is(err, cache.ErrNotCached) {
			t.Errorf("error = %v", err)
		}
	}
	if asked := gh.Asked(); len(asked) > 0 {
		t.Errorf("asked: %q", asked)
	}
}

func TestImmutableReleaseThatOthersNeedStays(t *testing.T) {
	gh := fake(t, githubtest.Repo{Immutable: true})
	var told []string
	s := open(t, gh, token, ghrelease.Options{Warn: func(text string) { told = append(told, text) }})
	a, ba := blobOf("a", 1000)
	b, bb := blobOf("b", 1000)
	mustPut(t, s, a, ba)
	old := storetest.Layer("base", 0, a)
	mustComplete(t, s, old)
	mustPut(t, s, b, bb)
	m := storetest.Layer("base", 1, a, b)
	mustComplete(t, s, m)
	if n, err := s.Remove(t.Context(), []cache.Manifest{old}); err != nil || n != 0 {
		t.Errorf("Remove: %d, %v", n, err)
	}
	if !slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, "immutable") }) {
		t.Errorf("told: %v", told)
	}
	requires(t, gh, "", m)
	if list, err := open(t, gh, token, ghrelease.Options{}).List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if n, err := s.Remove(t.Context(), []cache.Manifest{m}); err != nil || n == 0 {
		t.Errorf("Remove: %d, %v", n, err)
	}
	gh.Age(30 * 24 * time.Hour)
	if n, err := open(t, gh, token, ghrelease.Options{}).Remove(t.Context(), nil); err != nil || len(gh.Releases("me/env")) != 0 {
		t.Errorf("%d, %v: %v", n, err, gh.Releases("me/env"))
	}
}

func TestRenamedRepository(t *testing.T) {
	gh := fake(t, githubtest.Repo{})
	a, ba := blobOf("a", 1000)
	b, bb := blobOf("b", 1000)
	s := open(t, gh, token, ghrelease.Options{})
	mustPut(t, s, a, ba)
	gh.Rename("me/env", "me/other")
	mustPut(t, s, b, bb)
	m := storetest.Layer("base", 0, a, b)
	mustComplete(t, s, m)
	requires(t, gh, "", m)
	if list := gh.Releases("me/other"); len(list) != 1 {
		t.Errorf("releases: %v", list)
	}
}

func TestClocksThatDiffer(t *testing.T) {
	for _, skew := range []time.Duration{-26 * time.Hour, 3 * time.Hour, 400 * 24 * time.Hour} {
		gh := fake(t, githubtest.Repo{})
		gh.Skew = skew
		a, ba := blobOf("a", 1000)
		b, bb := blobOf("b", 1000)
		s := open(t, gh, token, ghrelease.Options{})
		mustPut(t, s, a, ba)
		m := storetest.Layer("base", 0, a)
		m.LeftOut = []cache.LeftOut{{Key: key.Sum("test", func(key.Writer) {}), Index: 1}} // it is whole all the same
		mustComplete(t, s, m)
		mustPut(t, s, b, bb) // of an interrupted session
		// What is young by GitHub's clock is not swept.
		if _, err := open(t, gh, token, ghrelease.Options{}).Remove(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if list := gh.Releases("me/env"); len(list) != 2 {
			t.Errorf("skew %v: releases %v", skew, list)
		}
		gh.Age(15 * 24 * time.Hour)
		if _, err := open(t, gh, token, ghrelease.Options{}).Remove(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if list := gh.Releases("me/env"); len(list) != 1 {
			t.Errorf("skew %v: releases %v, want the abandoned draft gone", skew, list)
		}
		// A limit whose reset is 1 s away, by the server's clock, is waited for.
		gh.Limit(0, gh.Now().Add(time.Second))
		time.AfterFunc(1500*time.Millisecond, func() { gh.Limit(-1, time.Time{}) })
		s2 := open(t, gh, token, ghrelease.Options{})
		c, bc := blobOf("c", 10)
		mustPut(t, s2, c, bc)
	}
}

func TestRateLimits(t *testing.T) {
	t.Run("far away", func(t *testing.T) {
		gh := fake(t, githubtest.Repo{})
		gh.Limit(0, gh.Now().Add(time.Hour))
		s := open(t, gh, token, ghrelease.Options{})
		start := time.Now()
		a, ba := blobOf("a", 1000)
		_, err := s.Find(t.Context(), cache.Tag("base", a.Key), []key.Key{a.Key})
		if !github.Is(err, github.Limited) || !strings.Contains(err.Error(), "rate limit is used up until") {
			t.Errorf("Find: %v", err)
		}
		for range 3 {
			err = s.Put(t.Context(), a, ba)
			if !github.Is(err, github.Limited) || !strings.Contains(err.Error(), "built, not pushed") {
				t.Errorf("Put: %v", err)
			}
		}
		if n := len(gh.Asked()); n > 4 {
			t.Errorf("asked %d times after the limit was told", n)
		}
		if d := time.Since(start); d > time.Minute { // the limit lasts for an hour
			t.Errorf("waited %v", d)
		}
	})
	t.Run("a public layer requires none", func(t *testing.T) {
		gh := fake(t, githubtest.Repo{})
		s := open(t, gh, token, ghrelease.Options{})
		a, ba := blobOf("a", 1000)
		mustPut(t, s, a, ba)
		m := storetest.Layer("base", 0, a)
		mustComplete(t, s, m)
		gh.Limit(0, gh.Now().Add(time.Hour))
		requires(t, gh, "", m)
	})
	t.Run("secondary, without a time, in the midst", func(t *testing.T) {
		gh := fake(t, githubtest.Repo{})
		gh.Fail(githubtest.Fault{Match: "POST /uploads", Status: 403, Times: -1, Body: `{"message":"You have exceeded a secondary rate limit"}`})
		s := open(t, gh, token, ghrelease.Options{})
		a, ba := blobOf("a", 1000)
		if err := s.Put(t.Context(), a, ba); !github.Is(err, github.Limited) {
			t.Errorf("Put: %v; a minute is more than this session waits", err)
		}
	})
}

func TestRequestsOfAFullHit(t *testing.T) {
	for name, r := range map[string]githubtest.Repo{"public": {}, "private": {Private: true}} {
		gh := fake(t, r)
		gh.PageSize = 2
		s := open(t, gh, token, ghrelease.Options{})
		for i := range 9 { // so many that their list has pages
			d, b := blobOf(fmt.Sprint(i), 100)
			mustPut(t, s, d, b)
			mustComplete(t, s, storetest.Layer("base", i, d))
		}
		gh.Asked()
		d, _ := blobOf("3", 100)
		s = open(t, gh, token, ghrelease.Options{})
		if found, err := s.Find(t.Context(), cache.Tag("base", d.Key), []key.Key{d.Key}); err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		if asked := gh.Asked(); len(asked) > 2 {
			t.Errorf("%s: before the first blob flows: %q", name, asked)
		}
	}
}

// An Enterprise server in private mode answers with a page to log in at.
func TestPageInPlaceOfTheFile(t *testing.T) {
	for _, size := range []int{1000, 40 << 20} {
		gh := fake(t, githubtest.Repo{})
		s := open(t, gh, token, ghrelease.Options{})
		d, b := blobOf("a", size)
		mustPut(t, s, d, b)
		m := storetest.Layer("base", 0, d)
		mustComplete(t, s, m)
		gh.Fail(githubtest.Fault{Match: "GET /me/env/releases/download", Status: 200, Times: -1, Body: "<html>log in</html>"})
		requires(t, gh, token, m)
		far := open(t, gh, "", ghrelease.Options{})
		if _, err := far.Find(t.Context(), m.Tag(), []key.Key{d.Key}); err != nil {
			t.Errorf("without a token: %v", err)
		}
		if _, err := storetest.Open(t, far, d); !errors.Is(err, cache.ErrNotCached) {
			t.Errorf("without a token: %v", err)
		}
	}
}

func TestRefusedByOthers(t *testing.T) {
	html := "<html>Access denied by policy</html>"
	t.Run("a firewall before the API", func(t *testing.T) {
		gh := fake(t, githubtest.Repo{})
		gh.Fail(githubtest.Fault{Match: " /repos/", Status: 403, Times: -1, Body: html})
		a, ba := blobOf("a", 1000)
		err := open(t, gh, token, ghrelease.Options{}).Put(t.Context(), a, ba)
		if !github.Is(err, github.Blocked) || !strings.Contains(err.Error(), "something between here and 127.0.0.1") {
			t.Errorf("%v", err)
		}
	})
	t.Run("the download host alone", func(t *testing.T) {
		gh := fake(t, githubtest.Repo{})
		s := open(t, gh, token, ghrelease.Options{})
		a, ba := blobOf("a", 1000)
		mustPut(t, s, a, ba)
		m := storetest.Layer("base", 0, a)
		mustComplete(t, s, m)
		gh.Fail(githubtest.Fault{Match: "CDN", Status: 403, Times: -1, Body: html})
		far := open(t, gh, "", ghrelease.Options{})
		_, err := far.Find(t.Context(), m.Tag(), []key.Key{a.Key})
		if host := strings.TrimPrefix(gh.CDN, "http://"); err == nil || !strings.Contains(err.Error(), host+" answers 403") {
			t.Errorf("%v does not name %s", err, host)
		}
		if strings.Contains(fmt.Sprint(err), "secret-signature") {
			t.Errorf("the signature is in %v", err)
		}
	})
}

// A repository that may not be read from here is asked once; the reason stands
// for whatever is wanted of it next.
func TestRefusedRepositoryIsNotAskedAgain(t *testing.T) {
	for name, f := range map[string]githubtest.Fault{
		"everything":       {Match: " /", Status: 403, Times: -1, Body: "<html>Access denied by policy</html>"},
		"the API":          {Match: " /repos/", Status: 403, Times: -1, Body: "<html>Access denied by policy</html>"},
		"the token's list": {Match: " /repos/", Status: 403, Times: -1, Body: `{"message":"Resource not accessible by personal access token"}`, Header: http.Header{"X-GitHub-Request-Id": {"1"}}},
		"a bad token":      {Match: " /repos/", Status: 401, Times: -1, Body: `{"message":"Bad credentials"}`},
	} {
		t.Run(name, func(t *testing.T) {
			gh := fake(t, githubtest.Repo{})
			gh.Fail(f)
			s := open(t, gh, token, ghrelease.Options{})
			a, ba := blobOf("a", 1000)
			find := func() error {
				_, err := s.Find(t.Context(), cache.Tag("base", a.Key), []key.Key{a.Key})
				return err
			}
			first := find()
			if first == nil {
				t.Fatal("Find: no error")
			}
			gh.Asked()
			for range 3 {
				_, list := s.List(t.Context())
				fetch := s.Fetch(t.Context(), a, &cache.Blob{})
				for what, err := range map[string]error{"Find": find(), "List": list, "Fetch": fetch, "Put": s.Put(t.Context(), a, ba)} {
					if err == nil || !strings.Contains(err.Error(), first.Error()) {
						t.Errorf("%s: %v\nwant the reason of the first: %v", what, err, first)
					}
				}
			}
			if asked := gh.Asked(); len(asked) > 0 {
				t.Errorf("asked again: %q", asked)
			}
		})
	}
}

// Who has waited once for a network that is not there does not wait again.
func TestNobodyAnswers(t *testing.T) {
	gh := fake(t, githubtest.Repo{})
	gh.Fail(githubtest.Fault{Match: " /", Stall: time.Minute, Status: 500, Times: -1})
	s := openStalling(t, gh, token, ghrelease.Options{}, 300*time.Millisecond)
	a, ba := blobOf("a", 1000)
	_, err := s.Find(t.Context(), cache.Tag("base", a.Key), []key.Key{a.Key})
	if !transfer.Unreachable(err) {
		t.Errorf("Find: %v", err)
	}
	gh.Asked()
	if err := s.Fetch(t.Context(), a, &cache.Blob{}); err == nil {
		t.Error("Open: no error")
	}
	if err := s.Put(t.Context(), a, ba); err == nil {
		t.Error("Put: no error")
	}
	if asked := gh.Asked(); len(asked) > 0 {
		t.Errorf("asked again: %q", asked)
	}
}

func TestNothingOfTheTokenIsWritten(t *testing.T) {
	gh := fake(t, githubtest.Repo{})
	s := open(t, gh, token, ghrelease.Options{})
	a, ba := blobOf("a", 1000)
	a.Text = "RUN echo -->\n<!-- clayer-release \"other\" --> `|` --> <script> @someone"
	mustPut(t, s, a, ba)
	mustComplete(t, s, storetest.Layer("base", 0, a))
	text := gh.Texts("me/env")
	if strings.Contains(text, token) {
		t.Error("the token is in a release's text")
	}
	if !strings.Contains(text, "safe to delete") || !strings.Contains(text, a.Key.Short()) {
		t.Errorf("text:\n%s", text)
	}
	requires(t, gh, "", storetest.Layer("base", 0, a))
}
