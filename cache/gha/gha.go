// Package gha stores snapshots in the cache service of GitHub Actions, its second version.
//
// Each snapshot is one entry, which a head that describes it begins. The service has
// neither a listing nor a removal that a job may use, and an entry never changes; but it
// finds the newest entry whose key begins with some text. So an entry is called
//
//	clayer-<chain key>-<place>-<edition>
//
// A step may have several snapshots, one at each place (from 1). What takes the place of
// another one is its next edition, from 0. One request finds the snapshot of a step: it
// asks for the newest edition at the first place, or else at any.
//
// A session that ends while it uploads leaves a key that is taken, under which nothing is
// found. The next one takes another place.
package gha

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/delta"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
)

// Variables that the runner gives to actions, and not to the steps of a workflow.
const (
	URLVariable   = "ACTIONS_RESULTS_URL"
	TokenVariable = "ACTIONS_RUNTIME_TOKEN"
)

// modeVariable says what the token may do: "read", "write-only", "none", or both.
const modeVariable = "ACTIONS_CACHE_MODE"

// atOnce is how many requests are under way at a time.
const atOnce = 16

// A Login is where the service of a job is, and what it is asked with.
type Login struct {
	at         *url.URL
	token      string
	repository string
	mode       string
}

// FindLogin returns the login of the job that this process is a part of.
func FindLogin(getenv func(string) string) (Login, error) {
	at, token := getenv(URLVariable), strings.TrimSpace(getenv(TokenVariable))
	if at == "" || token == "" {
		return Login{}, fmt.Errorf("%s and %s are not set: GitHub Actions sets them for actions only; clayer's action with expose: true sets them for later steps", URLVariable, TokenVariable)
	}
	u, err := url.Parse(at)
	switch {
	case err != nil: // the parser's error quotes it
		return Login{}, fmt.Errorf("$%s is no URL", URLVariable)
	case !secure(u) || u.User != nil || u.RawQuery != "":
		return Login{}, fmt.Errorf("$%s: want https://HOST", URLVariable)
	}
	return Login{u, token, getenv("GITHUB_REPOSITORY"), getenv(modeVariable)}, nil
}

// secure reports whether what is sent to a URL is read by nobody on the way.
func secure(u *url.URL) bool {
	return u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && transfer.IsLoopback(u.Host))
}

// Options say how a store is used. The zero Options is the default.
type Options struct {
	Temp      string           // the directory for blobs that arrive; "" means the system's
	Transfer  transfer.Options // how bytes are moved
	BlockSize int64            // of an upload in several blocks; 0 means 32 MiB
}

// A Store is the cache of a repository, as far as the job's branch sees it. It is safe for
// concurrent use, and for several jobs at once.
type Store struct {
	login Login
	temp  string
	block int64
	tr    *transfer.Client

	refused transfer.Refusals

	mu      sync.Mutex
	known   map[id]entry
	putting map[key.Key]*sync.Mutex // held while a snapshot of a step is stored
}

// New returns the store of a job. Nothing is asked of it yet.
func New(login Login, opt Options) *Store {
	s := &Store{
		login: login, temp: opt.Temp, block: cmp.Or(opt.BlockSize, 32<<20), tr: transfer.New(opt.Transfer),
		known: make(map[id]entry), putting: make(map[key.Key]*sync.Mutex),
	}
	switch login.mode {
	case "read", "none":
		s.refused.Write(cache.ErrReadOnly, 0)
	}
	if login.mode == "none" || login.mode == "write-only" {
		s.refused.Read(fmt.Errorf("the job may not read the cache (%s=%s)", modeVariable, login.mode), 0)
	}
	return s
}

// Name returns "gha".
func (s *Store) Name() string { return "gha" }

// Location returns gha: and the repository.
func (s *Store) Location() string { return "gha:" + s.login.repository }

// Writable returns why the service has refused in this process: cache.ErrReadOnly to a job
// whose token only reads, as that of a pull request from a fork.
func (s *Store) Writable() error { return s.refused.Writing() }

// An id names a snapshot of a step.
type id struct {
	key    key.Key
	digest digest.Digest
}

// note remembers where a snapshot is.
func (s *Store) note(e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[id{e.Key, e.Digest}] = e
}

func (s *Store) noted(d cache.Descriptor) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.known[id{d.Key, d.Digest}]
	return e, ok && e.Size == d.Size
}

func (s *Store) forget(d cache.Descriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, id{d.Key, d.Digest})
}

// forEach calls f for each key, several at a time.
func forEach[T any](ctx context.Context, all []T, f func(context.Context, T) error) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for _, v := range all {
		eg.Go(func() error { return f(ctx, v) })
	}
	return eg.Wait()
}

// Find asks for each step at the same time: for its entry, and then for the head of that.
func (s *Store) Find(ctx context.Context, _ string, keys []key.Key) (map[key.Key]cache.Found, error) {
	var mu sync.Mutex
	found := make(map[key.Key]cache.Found)
	err := forEach(ctx, keys, func(ctx context.Context, k key.Key) error {
		e, err := s.first(ctx, k)
		if errors.Is(err, cache.ErrNotCached) {
			return nil
		}
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		found[k] = cache.Found{Descriptor: e.Descriptor, Store: s.Name()}
		return nil
	})
	return found, err
}

// Variants asks for the entry at each place.
func (s *Store) Variants(ctx context.Context, _ string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	var mu sync.Mutex
	all := make(map[key.Key][]cache.Found)
	err := forEach(ctx, keys, func(ctx context.Context, k key.Key) error {
		places, err := s.places(ctx, k)
		var list []cache.Found
		for _, e := range places.live() {
			f := cache.Found{Descriptor: e.Descriptor, Store: s.Name()}
			if len(list) > 0 {
				f.Variant = len(list) + 1
			}
			list = append(list, f)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(list) > 0 {
			all[k] = list
		}
		return err
	})
	return all, err
}

// locate returns the entry of a snapshot.
func (s *Store) locate(ctx context.Context, d cache.Descriptor) (entry, error) {
	places, err := s.places(ctx, d.Key)
	if err != nil {
		return entry{}, err
	}
	for _, e := range places {
		if e.Digest == d.Digest && e.Size == d.Size {
			return e, nil
		}
	}
	return entry{}, fmt.Errorf("%w: step %s", cache.ErrNotCached, d.Key.Short())
}

// Fetch downloads a blob, several ranges of a large one at the same time. It is complete,
// and not verified.
func (s *Store) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	if !valid(d) {
		return fmt.Errorf("%w: digest %q", cache.ErrNotCached, d.Digest)
	}
	if err := s.refused.Reading(); err != nil {
		return err
	}
	e, ok := s.noted(d)
	fresh := !ok || e.url == ""
	if fresh {
		var err error
		if e, err = s.locate(ctx, d); err != nil {
			return err
		}
	}
	return b.Fill(s.temp, d, func(w cache.Writer) error {
		err := s.download(ctx, e, w)
		var status *transfer.StatusError
		if errors.As(err, &status) && (status.Code == 401 || status.Code == 403) && !fresh {
			// The address was given a while ago, and is good for some minutes.
			fresh = true
			if e, err = s.locate(ctx, d); err == nil {
				err = s.download(ctx, e, w)
			}
		}
		if errors.As(err, &status) && (status.Code == 404 || status.Code == 410) {
			s.forget(d)
			return fmt.Errorf("%w: step %s was removed from the cache", cache.ErrNotCached, d.Key.Short())
		}
		return s.explain(ctx, err)
	})
}

func (s *Store) download(ctx context.Context, e entry, w cache.Writer) error {
	return s.tr.Download(transfer.LedBy(ctx, s.login.at), e.url, shifted{w, e.offset}, e.offset+e.Size, transfer.GetOptions{})
}

// shifted is a file whose first bytes go nowhere.
type shifted struct {
	w      cache.Writer
	offset int64
}

// WriteAt implements io.WriterAt.
func (b shifted) WriteAt(p []byte, off int64) (int, error) {
	skipped := min(max(b.offset-off, 0), int64(len(p)))
	if skipped == int64(len(p)) {
		return len(p), nil
	}
	n, err := b.w.WriteAt(p[skipped:], off+skipped-b.offset)
	return int(skipped) + n, err
}

// Truncate drops what follows.
func (b shifted) Truncate(size int64) error { return b.w.Truncate(max(size-b.offset, 0)) }

// Missing implements delta.Composite: the first bytes are not needed.
func (b shifted) Missing(size int64) ([]delta.Range, bool) {
	rs, ok := b.w.Missing(size - b.offset)
	return delta.Shift(rs, b.offset), ok
}

// Copy implements delta.Composite.
func (b shifted) Copy(ctx context.Context, size int64) ([]delta.Range, error) {
	lost, err := b.w.Copy(ctx, size-b.offset)
	return delta.Shift(lost, b.offset), err
}

// Check implements delta.Composite.
func (b shifted) Check(r delta.Range) error {
	return b.w.Check(delta.Range{From: r.From - b.offset, To: r.To - b.offset})
}

// List returns cache.ErrUnlisted.
func (s *Store) List(context.Context) ([]cache.Manifest, error) { return nil, cache.ErrUnlisted }

// Interrupted returns nothing: the service does not say.
func (s *Store) Interrupted(context.Context) ([]cache.Manifest, error) { return nil, nil }

// Remove returns cache.ErrUnlisted. The service removes what nobody asked for in a week.
func (s *Store) Remove(context.Context, []cache.Manifest) (int64, error) {
	return 0, cache.ErrUnlisted
}

func valid(d cache.Descriptor) bool {
	return !d.Key.IsZero() && cache.ValidDigest(d.Digest) && d.Size >= 0
}

// version separates entries of this layout from all others of the repository.
var version = func() string {
	sum := sha256.Sum256([]byte("clayer: a head and a snapshot, 1"))
	return hex.EncodeToString(sum[:])
}()
