package oci_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/oci"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/ocitest"
)

// serve returns the host of a server that answers as handle does.
func serve(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(handle)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// before returns the host of a proxy to a registry, in which fault may answer.
func before(t *testing.T, r *ocitest.Registry, fault func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: r.Host})
		p.Out.Host = p.In.Host // so that the places for uploads are here
	}}
	return serve(t, func(w http.ResponseWriter, req *http.Request) {
		if !fault(w, req) {
			proxy.ServeHTTP(w, req)
		}
	})
}

func TestRefusalsAreToldWithWhatToDo(t *testing.T) {
	refuse := func(code int, header, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if header != "" {
				name, value, _ := strings.Cut(header, ": ")
				w.Header().Set(name, value)
			}
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":%q}]}`, text)
		}
	}
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc
		user   string
		op     func(s *oci.Store) error
		want   string
	}{
		{"no login", refuse(401, `Www-Authenticate: Basic realm="x"`, ""), "", push, "built, not pushed: HOST requires a login for me/env: docker login HOST, or set CLAYER_OCI_USERNAME and CLAYER_OCI_PASSWORD"},
		{"a wrong login", refuse(401, `Www-Authenticate: Basic realm="x"`, "no pw-pw-pw\nhere"), "me", list, "HOST does not accept the login of $CLAYER_OCI_USERNAME for me/env (no ... here): log in again with docker login HOST, or set CLAYER_OCI_USERNAME and CLAYER_OCI_PASSWORD"},
		{"no login, and no word of one", refuse(403, "", ""), "", push, "built, not pushed: HOST requires authentication to push to me/env (denied): docker login HOST, or set CLAYER_OCI_USERNAME and CLAYER_OCI_PASSWORD"},
		{"no right", refuse(403, "", "only readers"), "me", push, "built, not pushed: HOST does not allow the login of $CLAYER_OCI_USERNAME to push to me/env"},
		{"no repository", refuse(404, "", "name unknown"), "", push, "built, not pushed: HOST has no repository me/env, or hides it (name unknown): check its name, create it first, or log in"},
		{"a limit", refuse(429, "Retry-After: 7200", ""), "", find, "HOST limits requests: try again in 2h0m0s, or log in: that often has a higher limit"},
		{"read-only", refuse(405, "", "unsupported"), "", push, "built, not pushed: HOST is read-only"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := serve(t, tt.handle)
			password := ""
			if tt.user != "" {
				password = "pw-pw-pw"
			}
			err := tt.op(open(t, host+"/me/env", tt.user, password))
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), host, "HOST"); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if strings.Contains(err.Error(), "pw-pw-pw") {
				t.Errorf("the password is told: %s", err)
			}
		})
	}
}

func push(s *oci.Store) error {
	d, blob := storetest.Step("a", "content")
	return s.Put(context.Background(), d, blob)
}

func list(s *oci.Store) error {
	_, err := s.List(context.Background())
	return err
}

func find(s *oci.Store) error {
	d, _ := storetest.Step("a", "content")
	_, err := s.Find(context.Background(), cache.Tag("base", d.Key), []key.Key{d.Key})
	return err
}

// What was refused once is not asked for again, step by step.
func TestRefusedPushesAreNotRepeated(t *testing.T) {
	var asked atomic.Int32
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusForbidden)
	})
	s := open(t, host+"/me/env", "", "")
	for i := range 5 {
		d, blob := storetest.Step(fmt.Sprint(i), "content")
		if err := s.Put(t.Context(), d, blob); err == nil {
			t.Error("no error")
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// A registry that gives out tokens: the login goes to the token's place alone,
// the token to the registry alone, and nothing to where a blob is redirected.
func TestTokensGoWhereTheyBelong(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{})
	var mu sync.Mutex
	var leaked []string
	leak := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		leaked = append(leaked, fmt.Sprintf(format, args...))
	}
	storage := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if h := req.Header.Get("Authorization"); h != "" {
			leak("the storage got %q", h)
		}
		http.Redirect(w, req, "http://"+r.Host+strings.TrimPrefix(req.URL.Path, "/signed"), http.StatusTemporaryRedirect)
	})
	var tokens atomic.Int32
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:pw-pw-pw"))
	realm := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != basic {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		tokens.Add(1)
		fmt.Fprintf(w, `{"token":"tok-%s"}`, strings.Join(req.URL.Query()["scope"], " "))
	})
	host := before(t, r, func(w http.ResponseWriter, req *http.Request) bool {
		h := req.Header.Get("Authorization")
		writes := req.Method != "GET" && req.Method != "HEAD"
		switch {
		case strings.HasPrefix(h, "Basic"):
			leak("the registry got the login")
		case !strings.HasPrefix(h, "Bearer tok-repository:me/env:"), writes && !strings.Contains(h, "push"):
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s",scope="repository:me/env:pull%s"`, realm, map[bool]string{true: ",push"}[writes]))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		case req.Method == "GET" && strings.Contains(req.URL.Path, "/blobs/sha256:"):
			http.Redirect(w, req, "http://"+storage+"/signed"+req.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	s := open(t, host+"/me/env", "me", "pw-pw-pw")
	d, blob := storetest.Step("a", "content")
	if err := s.Put(t.Context(), d, blob); err != nil {
		t.Fatal(err)
	}
	if err := s.Complete(t.Context(), storetest.Layer("base", 1, d)); err != nil {
		t.Fatal(err)
	}
	s = open(t, host+"/me/env", "me", "pw-pw-pw")
	if err := find(s); err != nil {
		t.Fatal(err)
	}
	f, err := storetest.Open(t, s, d)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if len(leaked) > 0 {
		t.Error(leaked)
	}
	if n := tokens.Load(); n > 4 {
		t.Errorf("%d tokens for two sessions", n)
	}
	if _, err := open(t, host+"/me/env", "me", "wrong-pw").List(t.Context()); err == nil || !strings.Contains(err.Error(), "does not accept the login") {
		t.Errorf("a login that the token's place refuses: %v", err)
	}
}

// recorded notes the hosts that are asked.
type recorded struct {
	http.RoundTripper
	hosts *sync.Map
}

func (r recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	r.hosts.Store(req.URL.Host, true)
	return r.RoundTripper.RoundTrip(req)
}

// What leads away from this machine without encryption is not followed.
func TestNothingGoesInTheClear(t *testing.T) {
	for name, handle := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://storage.invalid/x", http.StatusTemporaryRedirect)
		},
		"realm": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Www-Authenticate", `Bearer realm="http://tokens.invalid/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, handle)
			var hosts sync.Map
			opt := quick
			opt.Transport = recorded{transfer.NewTransport(), &hosts}
			ref := parse(t, host+"/me/env")
			s := oci.New(ref, oci.Options{Login: login(t, ref, "me", "pw-pw-pw"), Temp: t.TempDir(), Transfer: opt})
			d, _ := storetest.Step("a", "content")
			if err := s.Fetch(t.Context(), d, &cache.Blob{}); err == nil {
				t.Error("Open: no error")
			}
			if err := find(s); err == nil && name == "realm" {
				t.Error("Find: no error")
			}
			hosts.Range(func(asked, _ any) bool {
				if asked != host {
					t.Errorf("%s was asked", asked)
				}
				return true
			})
		})
	}
}

// Uploads that break off, as TestFaults has no connection for, are tried again; what is
// there in the end is whole.
func TestInterruptedPush(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{})
	content := strings.Repeat("0123456789abcdef", 1<<17)
	for name, fault := range map[string]func(w http.ResponseWriter, req *http.Request) bool{
		"cut in the middle": func(w http.ResponseWriter, req *http.Request) bool {
			io.CopyN(io.Discard, req.Body, 1<<20)
			panic(http.ErrAbortHandler)
		},
		"the place for the upload is gone": func(w http.ResponseWriter, req *http.Request) bool {
			io.Copy(io.Discard, req.Body)
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}`)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			var once sync.Once
			host := before(t, r, func(w http.ResponseWriter, req *http.Request) (done bool) {
				if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/uploads/") {
					once.Do(func() { done = fault(w, req) })
				}
				return done
			})
			repo := "/me/" + strings.ReplaceAll(name, " ", "-")
			s := open(t, host+repo, "", "")
			d, blob := storetest.Step("a", content)
			if err := s.Put(t.Context(), d, blob); err != nil {
				t.Fatal(err)
			}
			f, err := storetest.Open(t, open(t, r.Host+repo, "", ""), d)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		})
	}
}

// A registry that dies is told, and is waited for once.
func TestRegistryDiesHalfway(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{})
	s := open(t, r.Host+"/me/env", "", "")
	a, blob := storetest.Step("a", "content of a")
	if err := s.Put(t.Context(), a, blob); err != nil {
		t.Fatal(err)
	}
	r.Close()
	b, blob := storetest.Step("b", "content of b")
	if err := s.Put(t.Context(), b, blob); err == nil || !strings.Contains(err.Error(), "built, not pushed") {
		t.Errorf("error = %v", err)
	}
	start := time.Now()
	for range 20 {
		if err := find(s); err == nil {
			t.Error("Find: no error")
		}
		if err := s.Fetch(t.Context(), a, &cache.Blob{}); err == nil {
			t.Error("Open: no error")
		}
		if err := s.Put(t.Context(), b, blob); err == nil {
			t.Error("Put: no error")
		}
	}
	if took := time.Since(start); took > time.Minute { // 60 waits
		t.Errorf("waited %s for what is known to be gone", took)
	}

	// The farther store is asked, and what is put goes there.
	far := ocitest.New(t, ocitest.Options{})
	other := open(t, far.Host+"/me/env", "", "")
	var told atomic.Int32
	tier := cache.Tiered(func(string, error) { told.Add(1) }, s, other)
	if err := tier.Put(t.Context(), b, blob); err != nil {
		t.Fatal(err)
	}
	if err := tier.Fetch(t.Context(), b, &cache.Blob{}); err != nil {
		t.Error(err)
	}
	if told.Load() == 0 {
		t.Error("nobody was told")
	}
}

func TestCorruptBlobIsAMiss(t *testing.T) {
	if _, err := ocitest.Command(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	r, err := ocitest.Start(dir, ocitest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	s := open(t, r.Host+"/me/env", "", "")
	d, blob := storetest.Step("a", "content")
	if err := s.Put(t.Context(), d, blob); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "data/docker/registry/v2/blobs/sha256", d.Digest.Encoded()[:2], d.Digest.Encoded(), "data")
	if err := os.WriteFile(path, []byte("CONTENT"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = storetest.Open(t, s, d)
	var corrupt *cache.CorruptError
	if !errors.As(err, &corrupt) || !errors.Is(err, cache.ErrNotCached) {
		t.Errorf("error = %v, want a *CorruptError", err)
	}
	if err := os.WriteFile(path, []byte("cont"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = storetest.Open(t, s, d); err == nil {
		t.Error("a blob that is too short: no error")
	}
}

// What a registry holds that may be read alone is found and opened.
func TestReadOnlyRegistry(t *testing.T) {
	if _, err := ocitest.Command(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	d, blob := storetest.Step("a", "content")
	m := storetest.Layer("base", 1, d)
	for _, opt := range []ocitest.Options{{}, {NoDelete: true}, {ReadOnly: true}} {
		r, err := ocitest.Start(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, r.Host+"/me/env", "", "")
		switch {
		case opt == ocitest.Options{}:
			if err := errors.Join(s.Put(t.Context(), d, blob), s.Complete(t.Context(), m)); err != nil {
				t.Error(err)
			}
		case opt.NoDelete:
			if n, err := s.Remove(t.Context(), []cache.Manifest{m}); err == nil || n != 0 || !strings.Contains(err.Error(), "does not allow deletion by its API") {
				t.Errorf("Remove: %d, %v", n, err)
			}
		case opt.ReadOnly:
			b, other := storetest.Step("b", "other content")
			if err := s.Put(t.Context(), b, other); err == nil || !strings.Contains(err.Error(), "is read-only") {
				t.Errorf("Put: %v", err)
			}
		}
		found, err := s.Find(t.Context(), m.Tag(), []key.Key{d.Key})
		if err != nil || len(found) != 1 {
			t.Errorf("%+v: Find: %v, %v", opt, found, err)
		}
		f, err := storetest.Open(t, s, d)
		if err != nil {
			t.Errorf("%+v: %v", opt, err)
		} else {
			f.Close()
		}
		r.Close()
	}
}

// A whole layer that is there is found by one request; an interrupted one by
// the keys of its steps.
func TestFindAsksOnce(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{})
	var asked atomic.Int32
	host := before(t, r, func(http.ResponseWriter, *http.Request) bool { asked.Add(1); return false })
	s := open(t, r.Host+"/me/env", "", "")
	var steps []cache.Descriptor
	var keys []key.Key
	for i := range 10 {
		d, blob := storetest.Step(fmt.Sprint(i), "content")
		if err := s.Put(t.Context(), d, blob); err != nil {
			t.Fatal(err)
		}
		steps, keys = append(steps, d), append(keys, d.Key)
	}
	m := storetest.Layer("base", 1, steps...)
	left, err := s.Interrupted(t.Context())
	if err != nil || len(left) != 1 || left[0].Name != "base" || len(left[0].Steps) != 10 {
		t.Errorf("Interrupted: %v, %v", left, err)
	}
	found, err := open(t, host+"/me/env", "", "").Find(t.Context(), m.Tag(), keys)
	if err != nil || len(found) != 10 || asked.Load() != 11 {
		t.Errorf("not whole: %d found by %d requests, %v", len(found), asked.Load(), err)
	}
	if err := s.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	asked.Store(0)
	found, err = open(t, host+"/me/env", "", "").Find(t.Context(), m.Tag(), keys)
	if err != nil || len(found) != 10 || asked.Load() != 1 {
		t.Errorf("whole: %d found by %d requests, %v", len(found), asked.Load(), err)
	}
}

// What others have under the tags, or a hostile registry gives, is no step.
func TestForeignManifests(t *testing.T) {
	d, _ := storetest.Step("a", "content")
	for name, body := range map[string]string{
		"not JSON":            `<html>log in</html>`,
		"another image":       `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`,
		"a digest that is no": `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"digest":"x","size":7}],"annotations":{"dev.clayer.step":"{\"key\":\"` + d.Key.String() + `\",\"digest\":\"x\",\"size\":7}"}}`,
		"another key":         `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],"annotations":{"dev.clayer.step":"{}"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader([]byte(body)))
			})
			found, _ := open(t, host+"/me/env", "", "").Find(t.Context(), "", []key.Key{d.Key})
			if len(found) != 0 {
				t.Errorf("found %v", found)
			}
		})
	}
}

// What answers like no registry does is a miss, at once: no answer that makes no
// sense is asked for again and again.
func TestNonsenseIsAMiss(t *testing.T) {
	d, _ := storetest.Step("a", "content")
	page := []byte("<!DOCTYPE html><title>log in</title>" + strings.Repeat("<p>please</p>", 100))
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(page)
	z.Close()
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`)
	answers := map[string]http.HandlerFunc{
		"html": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Write(page)
		},
		"html that says it is a manifest": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", d.Digest.String())
			w.Write(page)
		},
		"gzip": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(zipped.Bytes())
		},
		"cut": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
			w.Write(manifest[:20])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"cut, of unknown length": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Write(manifest[:20])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"closed without an answer": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"shorter than it says": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Write(manifest[:20])
		},
		"a token that is a page": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				w.Write(page)
				return
			}
			w.Header().Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				answer(w, r)
			})
			ref := parse(t, host+"/me/env")
			s := oci.New(ref, oci.Options{Login: login(t, ref, "me", "pw-pw-pw"), Temp: t.TempDir()})
			var told atomic.Int32
			tier := cache.Tiered(func(string, error) { told.Add(1) }, s)
			start := time.Now()
			for what, do := range map[string]func() error{
				"Find":  func() error { return find(s) },
				"List":  func() error { return list(s) },
				"Fetch": func() error { return s.Fetch(t.Context(), d, &cache.Blob{}) },
				"Put":   func() error { return push(s) },
			} {
				asked.Store(0)
				err := do()
				if err != nil && (strings.Contains(err.Error(), "pw-pw-pw") || strings.Contains(err.Error(), "?service")) {
					t.Errorf("%s: a secret is in %v", what, err)
				}
				if err == nil && what != "Find" {
					t.Errorf("%s: no error", what)
				}
				if n := asked.Load(); n > 8 {
					t.Errorf("%s: %d requests, %v", what, n, err)
				}
			}
			found, err := tier.Find(t.Context(), cache.Tag("base", d.Key), []key.Key{d.Key})
			if len(found) > 0 || err != nil || told.Load() > 1 {
				t.Errorf("Find: %v, %v, %d warnings", found, err, told.Load())
			}
			if took := time.Since(start); took > 25*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A repository that refuses to be read, or to be written, is not asked again,
// and neither is one whose place for tokens refuses.
func TestRefusedRepositoryIsNotAskedAgain(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	challenge := func(realm string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Www-Authenticate", `Bearer realm="`+realm+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	denied := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for name, handle := range map[string]http.HandlerFunc{
		"401":                       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"403":                       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"the realm refuses":         challenge("http://" + denied),
		"nobody is at the realm":    challenge(gone.URL),
		"the realm is not followed": challenge("http://tokens.invalid"),
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				handle(w, r)
			})
			ref := parse(t, host+"/me/env")
			s := oci.New(ref, oci.Options{Temp: t.TempDir()})
			first := find(s)
			if first == nil {
				t.Fatal("no error")
			}
			most := int32(3)
			if name == "nobody is at the realm" {
				most = 12 // it may be about to start
			}
			if n := asked.Load(); n > most {
				t.Errorf("Find: %d requests", n)
			}
			asked.Store(0)
			for range 3 {
				for what, err := range map[string]error{"Find": find(s), "List": list(s), "Put": push(s)} {
					if err == nil || !strings.Contains(err.Error(), first.Error()) {
						t.Errorf("%s: %v\nwant the reason of the first: %v", what, err, first)
					}
				}
			}
			if n := asked.Load(); n > 0 {
				t.Errorf("asked %d times again", n)
			}
		})
	}
	t.Run("the storage", func(t *testing.T) {
		var asked atomic.Int32
		host := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			http.Redirect(w, r, "http://"+denied+"/blob?sig=secret", http.StatusTemporaryRedirect)
		})
		s := open(t, host+"/me/env", "", "")
		for i := range 5 {
			d, _ := storetest.Step(fmt.Sprint(i), "content")
			if err := s.Fetch(t.Context(), d, &cache.Blob{}); err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("Open: %v", err)
			}
		}
		if n := asked.Load(); n != 2 { // the second for a fresh address
			t.Errorf("asked %d times", n)
		}
	})
}

// A limit on requests is no refusal: when it is over, pushes go on.
func TestLimitEnds(t *testing.T) {
	r := ocitest.New(t, ocitest.Options{})
	var limited atomic.Bool
	var asked atomic.Int32
	host := before(t, r, func(w http.ResponseWriter, req *http.Request) bool {
		asked.Add(1)
		if limited.Load() {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
		return limited.Load()
	})
	ref := parse(t, host+"/me/env")
	opt := quick
	opt.Retries = -1
	s := oci.New(ref, oci.Options{Temp: t.TempDir(), Transfer: opt})
	limited.Store(true)
	// The limit lasts for a second from somewhere between these two moments.
	before := time.Now()
	if err := push(s); err == nil {
		t.Fatal("no error")
	}
	after := time.Now()
	asked.Store(0)
	if err := push(s); (err == nil || asked.Load() > 0) && time.Since(before) < time.Second {
		t.Errorf("asked while the limit lasts: %v", err)
	}
	limited.Store(false)
	time.Sleep(time.Until(after.Add(1100 * time.Millisecond)))
	if err := push(s); err != nil {
		t.Error(err)
	}
}
