package s3_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/internal/hosttest"
	"github.com/clayer/clayer/internal/s3test"
)

// versions are two snapshots of a step, of which a frame of 24 MiB differs, and the one at the
// end.
func versions() (older, newer storetest.Frames) {
	var sizes []int
	for i := range 26 {
		sizes = append(sizes, 1<<20+i)
	}
	all := storetest.RandomFrames(9, sizes...)
	newer = append(storetest.Frames{}, all[:24]...)
	newer[11], newer[23] = all[24], all[25]
	return all[:24], newer
}

// putLayer puts a step, and a layer of it.
func putLayer(ctx context.Context, s cache.Store, f storetest.Frames, name string, minute int) (cache.Descriptor, error) {
	d, b := f.Step(name)
	defer b.Close()
	err := s.Put(ctx, d, b)
	if err == nil {
		err = s.Complete(ctx, storetest.Layer("base", minute, d))
	}
	return d, err
}

// The bucket's older snapshots give what did not change, and each is an object that depends
// on no other.
func TestCompose(t *testing.T) {
	g := s3test.New(t)
	if err := g.Bucket("bucket"); err != nil {
		t.Fatal(err)
	}
	relay := hosttest.NewRelay(t, g.URL, hosttest.Link{})
	next := func() cache.Store { return open(t, "s3://bucket/some/prefix", variables(relay.URL)) }
	older, newer := versions()
	old, err := putLayer(t.Context(), next(), older, "older", 0)
	if err != nil {
		t.Fatal(err)
	}
	relay.Up.Store(0)
	d, err := putLayer(t.Context(), next(), newer, "newer", 1)
	if err != nil {
		t.Fatal(err)
	}
	if up := relay.Up.Load(); up > 7<<20 {
		t.Errorf("%d bytes were sent of %d", up, d.Size)
	}
	if _, err := next().Remove(t.Context(), []cache.Manifest{storetest.Layer("base", 0, old)}); err != nil {
		t.Fatal(err)
	}
	if storetest.Read(t, next(), d) != string(bytes.Join(newer, nil)) {
		t.Error("other bytes")
	}
}

// Where the service composes nothing, or something else, all of the snapshot is uploaded.
func TestComposeFails(t *testing.T) {
	older, newer := versions()
	gateway := func(t *testing.T) string {
		g := s3test.New(t)
		if err := g.Bucket("bucket"); err != nil {
			t.Fatal(err)
		}
		return g.URL
	}
	copies := func(t *testing.T, answer http.HandlerFunc) string {
		u, err := url.Parse(gateway(t))
		if err != nil {
			t.Fatal(err)
		}
		proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = u.Scheme, u.Host }}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Amz-Copy-Source") != "" {
				answer(w, r)
				return
			}
			proxy.ServeHTTP(w, r)
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	for name, start := range map[string]func(t *testing.T) (address string, spoil func(cache.Descriptor)){
		"a service that does not know copies": func(t *testing.T) (string, func(cache.Descriptor)) {
			return s3test.NewFake(t).URL, nil
		},
		"501": func(t *testing.T) (string, func(cache.Descriptor)) {
			return copies(t, func(w http.ResponseWriter, _ *http.Request) { s3test.Refuse(w, 501, "NotImplemented") }), nil
		},
		"an error in 200": func(t *testing.T) (string, func(cache.Descriptor)) {
			return copies(t, func(w http.ResponseWriter, _ *http.Request) { s3test.Refuse(w, 200, "AccessDenied") }), nil
		},
		"nonsense": func(t *testing.T) (string, func(cache.Descriptor)) {
			return copies(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }), nil
		},
		"an older object that is damaged": func(t *testing.T) (string, func(cache.Descriptor)) {
			g := s3test.New(t)
			if err := g.Bucket("bucket"); err != nil {
				t.Fatal(err)
			}
			return g.URL, func(d cache.Descriptor) {
				f, err := os.OpenFile(filepath.Join(g.Dir, "bucket/blobs/sha256", d.Digest.Encoded()), os.O_WRONLY, 0)
				if err == nil {
					_, err = f.WriteAt([]byte("damage"), 3<<20)
					f.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, spoil := start(t)
			next := func() cache.Store { return open(t, "s3://bucket", variables(address)) }
			old, err := putLayer(t.Context(), next(), older, "older", 0)
			if err != nil {
				t.Fatal(err)
			}
			if spoil != nil {
				spoil(old)
			}
			d, err := putLayer(t.Context(), next(), newer, "newer", 1)
			if err != nil {
				t.Fatal(err)
			}
			if storetest.Read(t, next(), d) != string(bytes.Join(newer, nil)) {
				t.Error("other bytes")
			}
		})
	}
}

// A session that ends while a snapshot is composed leaves none; the next one makes it.
func TestComposeIsCanceled(t *testing.T) {
	g := s3test.New(t)
	if err := g.Bucket("bucket"); err != nil {
		t.Fatal(err)
	}
	next := func() cache.Store { return open(t, "s3://bucket", variables(g.URL)) }
	older, newer := versions()
	if _, err := putLayer(t.Context(), next(), older, "older", 0); err != nil {
		t.Fatal(err)
	}
	slow := hosttest.NewRelay(t, g.URL, hosttest.Link{Rate: 2 << 20})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	d, err := putLayer(ctx, open(t, "s3://bucket", variables(slow.URL)), newer, "newer", 1)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, want %v", err, context.DeadlineExceeded)
	}
	var b cache.Blob
	defer b.Close()
	if err := next().Fetch(t.Context(), d, &b); !errors.Is(err, cache.ErrNotCached) {
		t.Errorf("%v, want %v", err, cache.ErrNotCached)
	}
	if _, err := putLayer(t.Context(), next(), newer, "newer", 1); err != nil {
		t.Fatal(err)
	}
	if storetest.Read(t, next(), d) != string(bytes.Join(newer, nil)) {
		t.Error("other bytes")
	}
}
