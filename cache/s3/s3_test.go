package s3_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/s3"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/s3test"
)

// quick is how tests send: a failure shows within a second or two.
var quick = transfer.Options{Retries: 2}

// variables of a session with credentials for a service.
func variables(endpoint string) map[string]string {
	return map[string]string{"AWS_ENDPOINT_URL_S3": endpoint, "AWS_ACCESS_KEY_ID": s3test.KeyID, "AWS_SECRET_ACCESS_KEY": s3test.Secret}
}

func open(t testing.TB, address string, environ map[string]string) *s3.Store {
	t.Helper()
	return openWith(t, address, environ, s3.Options{})
}

// openWith returns the store of a new session.
func openWith(t testing.TB, address string, environ map[string]string, opt s3.Options) *s3.Store {
	t.Helper()
	at, err := s3.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	login, err := s3.FindLogin(at, func(name string) string { return environ[name] })
	if err != nil {
		t.Fatal(err)
	}
	if opt.Temp == "" {
		opt.Temp = t.TempDir()
	}
	if opt.Transfer.Retries == 0 {
		opt.Transfer.Retries = quick.Retries
	}
	return s3.New(at, login, opt)
}

func keysOf(ds ...cache.Descriptor) (keys []key.Key) {
	for _, d := range ds {
		keys = append(keys, d.Key)
	}
	return keys
}

// sessions is a store of which every call is a session of its own.
type sessions struct{ next func() cache.Store }

func (s sessions) Name() string     { return "s3" }
func (s sessions) Location() string { return s.next().Location() }
func (s sessions) Writable() error  { return s.next().Writable() }
func (s sessions) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	return s.next().Find(ctx, tag, keys)
}
func (s sessions) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	return s.next().Variants(ctx, tag, keys)
}
func (s sessions) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	return s.next().Fetch(ctx, d, b)
}
func (s sessions) Put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	return s.next().Put(ctx, d, b)
}
func (s sessions) Complete(ctx context.Context, m cache.Manifest) error {
	return s.next().Complete(ctx, m)
}
func (s sessions) List(ctx context.Context) ([]cache.Manifest, error) { return s.next().List(ctx) }
func (s sessions) Interrupted(ctx context.Context) ([]cache.Manifest, error) {
	return s.next().Interrupted(ctx)
}
func (s sessions) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	return s.next().Remove(ctx, ms)
}

// both runs the suite: in one session, and with one for each call, so that what counts is
// what the service has.
func both(t *testing.T, next func(t *testing.T) func() cache.Store) {
	for name, open := range map[string]func(t *testing.T) cache.Store{
		"one session":             func(t *testing.T) cache.Store { return next(t)() },
		"a session for each call": func(t *testing.T) cache.Store { return sessions{next(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, open)
			storetest.RunVariants(t, open)
		})
	}
}

// The suite holds on any service, whatever it makes of conditions.
func TestStoreWithoutConditions(t *testing.T) {
	for name, c := range map[string]s3test.Conditions{"honoured": s3test.Honoured, "ignored": s3test.Ignored, "501": s3test.NotThere, "400": s3test.BadArgument} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next := func(t *testing.T) cache.Store {
				f := s3test.NewFake(t)
				f.Conditions, f.PageSize = c, 3
				return sessions{func() cache.Store { return open(t, "s3://bucket", variables(f.URL)) }}
			}
			storetest.Run(t, next)
			storetest.RunVariants(t, next)
			storetest.RunDelta(t, next(t), 360<<10)
		})
	}
}

func TestStore(t *testing.T) {
	g := s3test.New(t)
	var n atomic.Int32
	both(t, func(t *testing.T) func() cache.Store {
		bucket := fmt.Sprintf("bucket%d", n.Add(1))
		if err := g.Bucket(bucket); err != nil {
			t.Fatal(err)
		}
		return func() cache.Store { return open(t, "s3://"+bucket+"/some/prefix", variables(g.URL)) }
	})
}

// The suite on a service of other authors.
func TestStoreOnMoto(t *testing.T) {
	url := s3test.NewMoto(t)
	var n atomic.Int32
	both(t, func(t *testing.T) func() cache.Store {
		bucket := fmt.Sprintf("bucket%d", n.Add(1))
		if err := s3test.MakeBucket(t.Context(), url, bucket); err != nil {
			t.Fatal(err)
		}
		return func() cache.Store { return open(t, "s3://"+bucket+"/some/prefix", variables(url)) }
	})
}

// A blob goes to the service in parts, and comes in ranges.
func TestLargeBlob(t *testing.T) {
	g := s3test.New(t)
	if err := g.Bucket("bucket"); err != nil {
		t.Fatal(err)
	}
	var parts, ranges atomic.Int32
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("partNumber") {
			parts.Add(1)
		}
		if r.Header.Get("Range") != "" {
			ranges.Add(1)
		}
		g.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	content := make([]byte, 40<<20)
	for i := 0; i < len(content); i += 4096 {
		binary.BigEndian.PutUint32(content[i:], uint32(i))
	}
	d, blob := storetest.Step("large", string(content))
	if err := open(t, "s3://bucket", variables(front.URL)).Put(t.Context(), d, blob); err != nil {
		t.Fatal(err)
	}
	f, err := storetest.Open(t, open(t, "s3://bucket", variables(front.URL)), d)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if parts.Load() != 3 || ranges.Load() != 4 {
		t.Errorf("%d parts, %d ranges, want 3 and 4", parts.Load(), ranges.Load())
	}
}

// A name that is no name of an object is stored all the same.
func TestOddNames(t *testing.T) {
	g := s3test.New(t)
	if err := g.Bucket("bucket"); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "/a+b c/ü/%41"} {
		s := open(t, "s3://bucket"+prefix, variables(g.URL))
		d, blob := storetest.Step("a", "content")
		for _, name := range []string{strings.Repeat("long-", 50), "../a/b", "ü +%"} {
			m := storetest.Layer(name, 1, d)
			if err := s.Put(t.Context(), d, blob); err != nil {
				t.Fatal(err)
			}
			if err := s.Complete(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			list, err := s.List(t.Context())
			if err != nil || len(list) != 1 || list[0].Name != m.Name {
				t.Errorf("List: %v, %v", list, err)
			}
			if _, err := s.Remove(t.Context(), list); err != nil {
				t.Error(err)
			}
			if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("after Remove: %v, %v", list, err)
			}
		}
	}
}
