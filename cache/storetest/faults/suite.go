package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/rounds"
)

// A Service is the server of a store.
type Service struct {
	Handler http.Handler

	// Open returns the store of a new session, which sends by opt.
	Open func(t testing.TB, opt transfer.Options) cache.Store

	// OpenAt is in the place of Open for a store whose requests another program sends: a
	// server at url stands between it and Handler, and time is that of the machine.
	OpenAt func(t testing.TB, url string, opt transfer.Options) cache.Store

	// Fill returns a store that writes without requests, for one that is only read; nil:
	// the store itself writes.
	Fill func(t testing.TB) cache.Store

	// Expired and Full are what the server answers to requests with credentials that have
	// expired, and to writes when there is no space left.
	Expired, Full func(w http.ResponseWriter)

	// Writes reports whether a request writes; nil: those with PUT and POST do.
	Writes func(req *http.Request) bool

	// Evict removes a blob, as a rule of the server for old ones does; nil: there are no
	// such rules.
	Evict func(d cache.Descriptor)

	// Most is how many requests one call may send while nothing answers as it should;
	// 0 means 12.
	Most int

	// Every is for a server that takes its time: a fault strikes one request of so many, and
	// the next fault another one. 0 means each.
	Every int
}

// Run runs the suite on services that start makes, each empty.
func Run(t *testing.T, start func(t *testing.T) Service) {
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			each(t, start, i, func(t *testing.T, s *session, at int) { s.struck(t, f, at) })
		})
	}
	t.Run("for good", func(t *testing.T) {
		t.Parallel()
		for _, f := range faults {
			if f.name == "damaged" || f.name == "slow" || f.name == "twice" {
				continue // there is an answer
			}
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				bubble(t, start(t), func(t *testing.T, s *session) { s.bounded(t, f) })
			})
		}
	})
	t.Run("expired credentials", func(t *testing.T) {
		t.Parallel()
		each(t, start, 0, func(t *testing.T, s *session, at int) { s.expired(t, at) })
	})
	if !start(t).writes() {
		t.Run("evicted after it was found", func(t *testing.T) {
			bubble(t, start(t), func(t *testing.T, s *session) { s.evicted(t) })
		})
		return
	}
	RunWriters(t, start)
}

// RunWriters runs the part of the suite about sessions that write.
func RunWriters(t *testing.T, start func(t *testing.T) Service) {
	t.Run("ended at a request", func(t *testing.T) {
		t.Parallel()
		each(t, start, 0, func(t *testing.T, s *session, at int) { s.killed(t, at, false) })
	})
	t.Run("ended after a request", func(t *testing.T) {
		t.Parallel()
		each(t, start, 1, func(t *testing.T, s *session, at int) { s.killed(t, at, true) })
	})
	t.Run("full", func(t *testing.T) {
		t.Parallel()
		each(t, start, 0, func(t *testing.T, s *session, at int) { s.full(t, at) })
	})
	t.Run("evicted after it was found", func(t *testing.T) {
		t.Parallel()
		if start(t).Evict == nil {
			t.Skip("nothing is evicted there")
		}
		bubble(t, start(t), func(t *testing.T, s *session) { s.evicted(t) })
	})
	t.Run("two writers", func(t *testing.T) {
		t.Parallel()
		seeds := uint64(20)
		if start(t).OpenAt != nil {
			seeds = uint64(rounds.Of(1, 2, 20))
		}
		for seed := range seeds {
			bubble(t, start(t), func(t *testing.T, s *session) { s.twoWriters(t, seed) })
		}
	})
}

func (s Service) writes() bool { return s.Fill == nil }

// mostRequests bounds how many requests a session of the suite sends.
const mostRequests = 200

// each runs a test for each request of a session, until one is not struck any more. Of
// every few, the first is the nth.
func each(t *testing.T, start func(t *testing.T) Service, nth int, test func(t *testing.T, s *session, at int)) {
	every := max(start(t).Every, 1)
	for at := nth % every; !t.Failed(); at += every {
		if at == mostRequests {
			t.Fatalf("more than %d requests", at)
		}
		last := false
		bubble(t, start(t), func(t *testing.T, s *session) {
			test(t, s, at)
			last = !s.hit.Load()
		})
		if last {
			if at == nth%every {
				t.Error("no request was struck")
			}
			return
		}
	}
}

// bubble runs a test in time of its own, if that is possible.
func bubble(t *testing.T, service Service, test func(t *testing.T, s *session)) {
	run := synctest.Test
	net := &network{server: service.Handler, longest: time.Second}
	if service.OpenAt != nil {
		run = func(t *testing.T, f func(*testing.T)) { f(t) }
		net.longest = 20 * time.Millisecond
		front := httptest.NewServer(net)
		defer func() {
			front.CloseClientConnections()
			front.Close()
		}()
		service.Open = func(t testing.TB, opt transfer.Options) cache.Store {
			return service.OpenAt(t, front.URL, transfer.Options{Retries: 2})
		}
	}
	run(t, func(t *testing.T) {
		s := &session{Service: service, net: net}
		for i, content := range []string{"small", strings.Repeat("0123456789abcdef", 8<<10), ""} {
			d, b := storetest.Step(fmt.Sprint("step ", i), content)
			s.steps, s.blobs, s.contents = append(s.steps, d), append(s.blobs, b), append(s.contents, content)
		}
		s.layer = storetest.Layer("base", 1, s.steps...)
		if !s.writes() {
			s.write(t, s.Fill(t))
		}
		test(t, s)
		for _, b := range s.blobs {
			b.Close()
		}
	})
}

// A session is one that stores a layer, and one that restores it.
type session struct {
	Service
	net      *network
	steps    []cache.Descriptor
	blobs    []*cache.Blob
	contents []string
	layer    cache.Manifest
	hit      atomic.Bool // a fault struck
}

func (s *session) open(t testing.TB) cache.Store {
	return s.Open(t, transfer.Options{Transport: s.net, Retries: 3})
}

func (s *session) put(t testing.TB, store cache.Store) error {
	if s.OpenAt != nil { // as a solve does, which takes fewer requests
		var g errgroup.Group
		for i, d := range s.steps {
			g.Go(func() error { return store.Put(t.Context(), d, s.blobs[i]) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		return store.Complete(t.Context(), s.layer)
	}
	for i, d := range s.steps {
		if err := store.Put(t.Context(), d, s.blobs[i]); err != nil {
			return err
		}
	}
	return store.Complete(t.Context(), s.layer)
}

func (s *session) write(t testing.TB, store cache.Store) {
	t.Helper()
	if err := s.put(t, store); err != nil {
		t.Fatal(err)
	}
}

func (s *session) find(t testing.TB, store cache.Store) (map[key.Key]cache.Found, error) {
	var keys []key.Key
	for _, d := range s.steps {
		keys = append(keys, d.Key)
	}
	return store.Find(t.Context(), s.layer.Tag(), keys)
}

// fetch fetches a step, whose bytes must be right if there is no error.
func (s *session) fetch(t testing.TB, store cache.Store, i int) error {
	t.Helper()
	var b cache.Blob
	defer b.Close()
	if err := cache.Fetch(t.Context(), store, s.steps[i], &b); err != nil {
		return err
	}
	data := make([]byte, s.steps[i].Size)
	if _, err := b.ReadAt(data, 0); len(data) > 0 && err != nil || string(data) != s.contents[i] {
		t.Errorf("step %d: other bytes, verified; %v", i, err)
	}
	return nil
}

// read restores the layer, and returns what failed.
func (s *session) read(t testing.TB, store cache.Store) error {
	t.Helper()
	found, err := s.find(t, store)
	if err != nil {
		return fmt.Errorf("find: %w", err)
	}
	for i, d := range s.steps {
		if _, ok := found[d.Key]; !ok {
			return fmt.Errorf("step %d: %w", i, cache.ErrNotCached)
		}
		if err := s.fetch(t, store, i); err != nil {
			return fmt.Errorf("fetch step %d: %w", i, err)
		}
	}
	list, err := store.List(t.Context())
	if errors.Is(err, cache.ErrUnlisted) {
		return nil
	}
	if err != nil || len(list) != 1 {
		return fmt.Errorf("list: %d layers, %w", len(list), errors.Join(err, cache.ErrNotCached))
	}
	return nil
}

// consistent checks what sessions without faults find, whatever happened: everything that
// the store names is there, and what is missing can be stored.
func (s *session) consistent(t testing.TB) {
	t.Helper()
	s.net.set(nil)
	store := s.open(t)
	found, err := s.find(t, store)
	if err != nil {
		t.Errorf("find: %v", err)
	}
	list, err := store.List(t.Context())
	if unlisted := errors.Is(err, cache.ErrUnlisted); !unlisted && (err != nil || len(list) > 1) {
		t.Errorf("%d layers are listed, %v", len(list), err)
	}
	for i, d := range s.steps {
		if _, ok := found[d.Key]; !ok {
			if len(list) > 0 {
				t.Errorf("the layer is listed, and lacks step %d", i)
			}
			continue
		}
		if err := s.fetch(t, store, i); err != nil {
			t.Errorf("step %d is found, and not there: %v", i, err)
		}
	}
	if s.writes() {
		s.write(t, s.open(t))
	}
	if err := s.read(t, s.open(t)); err != nil {
		t.Errorf("what is stored afterwards: %v", err)
	}
}

// once has a fault strike one request.
func (s *session) once(f fault, at int) {
	s.net.set(func(n int, req *http.Request, serve func() *http.Response) (*http.Response, error, bool) {
		if n != at {
			return nil, nil, false
		}
		s.hit.Store(true)
		resp, err := f.strike(req, serve)
		return resp, err, true
	})
}

// struck has a fault strike one request of a session that stores and of one that restores.
func (s *session) struck(t *testing.T, f fault, at int) {
	s.once(f, at)
	var errs []error
	if s.writes() {
		errs = append(errs, s.put(t, s.open(t)))
	}
	errs = append(errs, s.read(t, s.open(t)))
	if err := errors.Join(errs...); f.passes && err != nil {
		t.Errorf("request %d: %v", at, err)
	}
	s.consistent(t)
}

// from has an answer to every request from one on that is concerned.
func (s *session) from(at int, concerned func(*http.Request) bool, answer func(w http.ResponseWriter)) {
	s.net.set(func(n int, req *http.Request, _ func() *http.Response) (*http.Response, error, bool) {
		if n < at || !concerned(req) {
			return nil, nil, false
		}
		s.hit.Store(true)
		rec := httptest.NewRecorder()
		answer(rec)
		return finish(rec, req), nil, true
	})
}

// bounded has a fault strike every request.
func (s *session) bounded(t *testing.T, f fault) {
	s.net.set(func(_ int, req *http.Request, serve func() *http.Response) (*http.Response, error, bool) {
		resp, err := f.strike(req, serve)
		return resp, err, true
	})
	calls := []struct {
		name string
		do   func(cache.Store) error
	}{
		{"Find", func(store cache.Store) error { _, err := s.find(t, store); return err }},
		{"Fetch", func(store cache.Store) error { return s.fetch(t, store, 0) }},
		{"List", func(store cache.Store) error { _, err := store.List(t.Context()); return err }},
		{"Put", func(store cache.Store) error { return store.Put(t.Context(), s.steps[0], s.blobs[0]) }},
		{"Complete", func(store cache.Store) error { return store.Complete(t.Context(), s.layer) }},
		{"Remove", func(store cache.Store) error {
			_, err := store.Remove(t.Context(), []cache.Manifest{s.layer})
			return err
		}},
	}
	most := s.Most
	if most == 0 {
		most = 12
	}
	for _, c := range calls {
		before, began := s.net.requests(), time.Now()
		err := c.do(s.open(t))
		if err == nil && (c.name == "Put" || c.name == "Fetch" || c.name == "Complete") {
			t.Errorf("%s, %s: no error", f.name, c.name)
		}
		if n, took := s.net.requests()-before, time.Since(began); n > most || took > 5*time.Minute {
			t.Errorf("%s, %s: %d requests in %v: %v", f.name, c.name, n, took, err)
		}
	}
	s.consistent(t)
}

// expired has the credentials expire at a request.
func (s *session) expired(t *testing.T, at int) {
	s.from(at, func(*http.Request) bool { return true }, s.Expired)
	for _, store := range []cache.Store{s.open(t), s.open(t)} {
		errs := []error{s.read(t, store)}
		if s.writes() {
			errs = append(errs, s.put(t, store))
		}
		if !s.hit.Load() {
			break
		}
		errs = append(errs, s.read(t, store)) // what may not be written may be read
		before := s.net.requests()
		errs = append(errs, s.put(t, store), s.read(t, store))
		if err := errors.Join(errs...); err == nil {
			t.Errorf("request %d: no error", at)
		}
		if n := s.net.requests() - before; n > 0 {
			t.Errorf("request %d: %d requests after it was refused: %v", at, n, errors.Join(errs...))
		}
	}
	s.consistent(t)
}

// full has no space left from a request on.
func (s *session) full(t *testing.T, at int) {
	writes := s.Writes
	if writes == nil {
		writes = func(req *http.Request) bool { return req.Method == http.MethodPut || req.Method == http.MethodPost }
	}
	s.from(at, writes, s.Full)
	store := s.open(t)
	err := s.put(t, store)
	if s.hit.Load() && err == nil {
		t.Errorf("request %d: no error", at)
	}
	s.consistent(t)
}

// killed ends a session that stores at a request, or after it.
func (s *session) killed(t *testing.T, at int, after bool) {
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	s.net.set(func(n int, req *http.Request, serve func() *http.Response) (*http.Response, error, bool) {
		if n < at {
			return nil, nil, false
		}
		if n == at {
			s.hit.Store(true)
			if after {
				serve().Body.Close()
			}
			kill()
		}
		return nil, errCut, true
	})
	store := s.open(t)
	for i, d := range s.steps {
		if ctx.Err() == nil {
			_ = store.Put(ctx, d, s.blobs[i]) // it is ended
		}
	}
	if ctx.Err() == nil {
		_ = store.Complete(ctx, s.layer)
	}
	s.consistent(t)
}

// evicted removes blobs that were found.
func (s *session) evicted(t *testing.T) {
	store := s.open(t)
	if s.writes() {
		s.write(t, s.open(t))
	}
	found, err := s.find(t, store)
	if err != nil || len(found) != len(s.steps) {
		t.Fatalf("found %d, %v", len(found), err)
	}
	for i, d := range s.steps {
		s.Evict(d)
		if err := s.fetch(t, store, i); !errors.Is(err, cache.ErrNotCached) && (d.Size > 0 || err != nil) { // no bytes may need no request
			t.Errorf("step %d: %v, want ErrNotCached", i, err)
		}
	}
	if !s.writes() {
		return
	}
	s.write(t, store) // by the session that missed them
	if err := s.read(t, s.open(t)); err != nil {
		t.Error(err)
	}
}

// twoWriters has two sessions store the same layer, each with snapshots of its own, in an
// order that a seed says.
func (s *session) twoWriters(t *testing.T, seed uint64) {
	s.net.order = rand.New(rand.NewPCG(seed, 0))
	var wg sync.WaitGroup
	want := make(map[key.Key][]cache.Descriptor)
	var mu sync.Mutex
	for _, machine := range []string{"one", "two"} {
		store := s.open(t)
		wg.Go(func() {
			var steps []cache.Descriptor
			for i := range 3 {
				d, b := storetest.Variant(fmt.Sprint("step ", i), fmt.Sprint(i, " for ", machine), "lib"+machine)
				defer b.Close()
				if machine == "one" && i == 0 {
					d.Needs = nil // of use everywhere
				}
				if err := store.Put(t.Context(), d, b); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				steps = append(steps, d)
				mu.Lock()
				want[d.Key] = append(want[d.Key], d)
				mu.Unlock()
			}
			if err := store.Complete(t.Context(), storetest.Layer("base", 1, steps...)); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		})
	}
	wg.Wait()
	s.net.order = nil
	store := s.open(t)
	list, err := store.List(t.Context())
	if unlisted := errors.Is(err, cache.ErrUnlisted); !unlisted && (err != nil || len(list) != 1 || len(list[0].Steps) != 3) {
		t.Errorf("seed %d: List: %v, %v", seed, list, err)
	}
	for k, all := range want {
		got, err := store.Variants(t.Context(), "", []key.Key{k})
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		for _, d := range all {
			if !slices.ContainsFunc(got[k], func(f cache.Found) bool { return f.Digest == d.Digest && f.VariantID() == d.VariantID() }) {
				t.Errorf("seed %d: %s is lost: %d snapshots are there", seed, d.Text, len(got[k]))
			}
			var b cache.Blob
			if err := cache.Fetch(t.Context(), store, d, &b); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			b.Close()
		}
	}
}
