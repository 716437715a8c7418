package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/cache/web"
	"github.com/clayer/clayer/dag/key"
)

// A site serves the directory of a store.
type site struct {
	*httptest.Server
	dir *dir.Dir

	mu    sync.Mutex
	asked []string
	fault func(w http.ResponseWriter, r *http.Request) bool // nil: none
}

func newSite(t *testing.T, ranges bool) *site {
	t.Helper()
	d, err := dir.Open(filepath.Join(t.TempDir(), "store"), dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: d}
	files := http.FileServer(http.Dir(d.Path()))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Path)
		fault := s.fault
		s.mu.Unlock()
		if fault != nil && fault(w, r) {
			return
		}
		if !ranges {
			r.Header.Del("Range")
		}
		http.StripPrefix("/cache", files).ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.asked
	s.asked = nil
	return all
}

// open returns the store of a new session.
func (s *site) open(t *testing.T, environ map[string]string) *web.Store {
	t.Helper()
	at, err := web.Parse(s.URL + "/cache/")
	if err != nil {
		t.Fatal(err)
	}
	login, err := web.FindLogin(at, func(name string) string { return environ[name] })
	if err != nil {
		t.Fatal(err)
	}
	return web.New(at, web.Options{Login: login, Temp: t.TempDir(), Transfer: transfer.Options{Retries: 1, Stall: 5 * time.Second}})
}

// both writes to the directory, and reads from the server, in a new session each time.
type both struct {
	*dir.Dir
	read func() *web.Store
}

func (b both) Name() string { return "https" }

func (b both) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	return b.read().Find(ctx, tag, keys)
}

func (b both) Fetch(ctx context.Context, d cache.Descriptor, blob *cache.Blob) error {
	return b.read().Fetch(ctx, d, blob)
}

func (b both) List(ctx context.Context) ([]cache.Manifest, error) { return b.read().List(ctx) }

func TestStore(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprintf("ranges=%t", ranges), func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) cache.Store {
				s := newSite(t, ranges)
				return both{s.dir, func() *web.Store { return s.open(t, nil) }}
			})
		})
	}
}

// twelve puts a layer of twelve steps.
func twelve(t *testing.T, s *site) cache.Manifest {
	t.Helper()
	var steps []cache.Descriptor
	for i := range 12 {
		d, b := storetest.Step(fmt.Sprint("step ", i), fmt.Sprint("content ", i))
		if err := s.dir.Put(t.Context(), d, b); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, d)
	}
	m := storetest.Layer("base", 0, steps...)
	if err := s.dir.Complete(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func keysOf(m cache.Manifest) (keys []key.Key) {
	for _, d := range m.Steps {
		keys = append(keys, d.Key)
	}
	return keys
}

func TestRequests(t *testing.T) {
	s := newSite(t, true)
	m := twelve(t, s)
	store := s.open(t, nil)
	found, err := store.Find(t.Context(), m.Tag(), keysOf(m))
	if err != nil || len(found) != 12 {
		t.Fatalf("found %d, %v", len(found), err)
	}
	if asked := s.requests(); len(asked) != 2 {
		t.Errorf("a whole layer took %q", asked)
	}
	// Its last line edited: the other steps are found in the layer of the same name, of which
	// the last one is told too.
	edited, _ := storetest.Step("edited", "")
	found, err = store.Find(t.Context(), cache.Tag("base", edited.Key), append(keysOf(m)[:11:11], edited.Key))
	if _, ok := found[edited.Key]; err != nil || len(found) != 12 || ok {
		t.Fatalf("found %d, %v", len(found), err)
	}
	if asked := s.requests(); len(asked) != 2 {
		t.Errorf("an edited layer took %q", asked)
	}
}

func TestReadOnly(t *testing.T) {
	s := newSite(t, true)
	m := twelve(t, s)
	store := s.open(t, nil)
	_, err := store.Remove(t.Context(), []cache.Manifest{m})
	for _, err := range []error{err, store.Writable(), store.Complete(t.Context(), m), store.Put(t.Context(), m.Steps[0], storetest.Blob("content 0"))} {
		if !errors.Is(err, cache.ErrReadOnly) {
			t.Errorf("%v, want ErrReadOnly", err)
		}
	}
	tier := cache.Tiered(func(store string, err error) { t.Errorf("warned of %s: %v", store, err) }, store, s.dir)
	d, b := storetest.Step("new", "new")
	if err := tier.Put(t.Context(), d, b); err != nil {
		t.Error(err)
	}
}

// A bucket that nobody may list says 403 of what is not there.
func TestBucketThatHidesWhatIsMissing(t *testing.T) {
	s := newSite(t, true)
	m := twelve(t, s)
	s.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if _, err := os.Stat(filepath.Join(s.dir.Path(), strings.TrimPrefix(r.URL.Path, "/cache"))); err == nil {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	other, _ := storetest.Step("other", "")
	found, err := s.open(t, nil).Find(t.Context(), cache.Tag("base", other.Key), []key.Key{m.Steps[0].Key, other.Key})
	if _, ok := found[other.Key]; err != nil || ok || found[m.Steps[0].Key].Size == 0 {
		t.Errorf("found %d, %v", len(found), err)
	}
}

func TestRefusal(t *testing.T) {
	s := newSite(t, true)
	m := twelve(t, s)
	s.fault = func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	store := s.open(t, nil)
	for range 3 {
		_, err := store.Find(t.Context(), m.Tag(), keysOf(m))
		var refused *web.RefusedError
		if !errors.As(err, &refused) || refused.Code != http.StatusForbidden || !strings.Contains(err.Error(), ".netrc") {
			t.Errorf("%v", err)
		}
	}
	if asked := s.requests(); len(asked) != 1 {
		t.Errorf("asked %q after a refusal", asked)
	}
}

func TestLogin(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("X-Token") != "" {
			t.Errorf("the login went along a redirect: %v", r.Header)
		}
		http.NotFound(w, r)
	}))
	defer elsewhere.Close()
	netrc := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(netrc, []byte("# hosts\ndefault login d password wrong\nmachine 127.0.0.1\n\tlogin me\n\tpassword secret-word # mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		environ map[string]string
		right   func(*http.Request) bool
	}{
		{map[string]string{"NETRC": netrc}, func(r *http.Request) bool {
			u, p, ok := r.BasicAuth()
			return ok && u == "me" && p == "secret-word"
		}},
		{map[string]string{web.HeaderVariable: "X-Token: secret-word"}, func(r *http.Request) bool { return r.Header.Get("X-Token") == "secret-word" }},
	} {
		s := newSite(t, true)
		m := twelve(t, s)
		s.fault = func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case !test.right(r):
				w.WriteHeader(http.StatusUnauthorized)
			case strings.Contains(r.URL.Path, m.Steps[0].Digest.Encoded()):
				http.Redirect(w, r, elsewhere.URL, http.StatusFound)
			default:
				return false
			}
			return true
		}
		store := s.open(t, test.environ)
		if found, err := store.Find(t.Context(), m.Tag(), keysOf(m)); err != nil || len(found) != 12 {
			t.Errorf("found %d, %v", len(found), err)
		}
		var b cache.Blob
		if err := store.Fetch(t.Context(), m.Steps[0], &b); !errors.Is(err, cache.ErrNotCached) {
			t.Errorf("%v, want ErrNotCached", err)
		}
		b.Close()
		_, err := s.open(t, nil).Find(t.Context(), m.Tag(), keysOf(m))
		if err == nil || strings.Contains(err.Error(), "secret-word") {
			t.Errorf("without a login: %v", err)
		}
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]string{
		"https://example.com/a/b/": "https://example.com/a/b", "https://example.com": "https://example.com", "http://127.0.0.1:80/x": "http://127.0.0.1:80/x",
		"http://example.com/a": "", "https://u:p@example.com/a": "", "https://example.com/a?x=y": "", "ftp://example.com": "", "https:///a": "", "https://exa mple/": "",
	} {
		u, err := web.Parse(s)
		if want == "" {
			if err == nil || strings.Contains(err.Error(), "u:p@") || strings.Contains(err.Error(), "x=y") {
				t.Errorf("%s: %v", s, err)
			}
		} else if err != nil || u.String() != want {
			t.Errorf("%s: %v, %v", s, u, err)
		}
	}
}

// What a server may say instead of an index, a manifest or a step is never used.
func TestNonsense(t *testing.T) {
	for name, body := range map[string]string{
		"a page": "<html>log in</html>", "nothing": "", "null": "null", "a list": "[]", "no digest": `{"manifests":[{"digest":"sha256:zz","annotations":{"org.opencontainers.image.ref.name":"layer-base-0000000000000000"}}]}`,
		"too much": strings.Repeat(" ", 17<<20),
	} {
		s := newSite(t, true)
		m := twelve(t, s)
		for _, part := range []string{"index.json", "/blobs/", "/keys/"} {
			s.fault = func(w http.ResponseWriter, r *http.Request) bool {
				if part != "/keys/" && strings.Contains(r.URL.Path, "/keys/") {
					http.NotFound(w, r)
					return true
				}
				if !strings.Contains(r.URL.Path, part) {
					return false
				}
				fmt.Fprint(w, body)
				return true
			}
			tag := m.Tag()
			if part == "/keys/" {
				tag = "layer-other-0000000000000000"
			}
			if found, _ := s.open(t, nil).Find(t.Context(), tag, keysOf(m)); len(found) != 0 {
				t.Errorf("%s for %s: found %d", name, part, len(found))
			}
		}
	}
}

// Export writes what New reads; pieces that lie are a miss.
func TestPieces(t *testing.T) {
	from := newSite(t, true)
	m := twelve(t, from)
	large, b := storetest.Step("large", strings.Repeat("0123456789", 1000))
	if err := from.dir.Put(t.Context(), large, b); err != nil {
		t.Fatal(err)
	}
	l := storetest.Layer("large", 1, large)
	if err := from.dir.Complete(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, true)
	x, err := web.Export(t.Context(), s.dir.Path(), from.dir, []cache.Manifest{m, l}, 3000)
	if err != nil || x.Layers != 2 || x.Bytes < 10_000 {
		t.Fatalf("%+v, %v", x, err)
	}
	for _, tag := range []string{l.Tag(), "layer-other-0000000000000000"} { // by the layer, and by the step
		store := s.open(t, nil)
		if found, err := store.Find(t.Context(), tag, []key.Key{large.Key}); err != nil || len(found) != 1 {
			t.Fatalf("found %d, %v", len(found), err)
		}
		if got := storetest.Read(t, store, large); len(got) != 10_000 {
			t.Errorf("read %d bytes", len(got))
		}
	}
	if again, err := web.Export(t.Context(), s.dir.Path(), from.dir, []cache.Manifest{m, l}, 3000); err != nil || again.Files != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	file := filepath.Join(s.dir.Path(), "keys", large.Key.String()[:2], large.Key.String()+".json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []string{"3001", "-1", "0", "99999999999"} {
		if err := os.WriteFile(file, []byte(strings.Replace(string(data), `"size":3000`, `"size":`+size, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		store := s.open(t, nil)
		if _, err := store.Find(t.Context(), "layer-other-0000000000000000", []key.Key{large.Key}); err != nil {
			t.Error(err)
		}
		var b cache.Blob
		if err := cache.Fetch(t.Context(), store, large, &b); !errors.Is(err, cache.ErrNotCached) {
			t.Errorf("a piece of %s bytes: %v", size, err)
		}
		b.Close()
	}
}
