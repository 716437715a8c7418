package gha_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/gha"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/storetest/faults"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/ghatest"
)

func variables(address string) map[string]string {
	return map[string]string{gha.URLVariable: address, gha.TokenVariable: ghatest.Token, "GITHUB_REPOSITORY": "me/env"}
}

func open(t testing.TB, environ map[string]string, opt gha.Options) *gha.Store {
	t.Helper()
	login, err := gha.FindLogin(func(name string) string { return environ[name] })
	if err != nil {
		t.Fatal(err)
	}
	if opt.Temp == "" {
		opt.Temp = t.TempDir()
	}
	if opt.Transfer.Retries == 0 {
		opt.Transfer.Retries = 2
	}
	return gha.New(login, opt)
}

func TestStore(t *testing.T) {
	next := func(t *testing.T) cache.Store { return open(t, variables(ghatest.New(t).URL+"/"), gha.Options{}) }
	storetest.RunUnlisted(t, next)
	storetest.RunVariants(t, next)
	storetest.RunDelta(t, next(t), 360<<10)
}

func TestFaults(t *testing.T) {
	temp := t.TempDir()
	faults.Run(t, func(t *testing.T) faults.Service {
		srv := ghatest.Handler()
		return faults.Service{
			Handler: srv,
			Every:   3,
			Open: func(t testing.TB, opt transfer.Options) cache.Store {
				return open(t, variables("http://127.0.0.1:1/"), gha.Options{Transfer: opt, Temp: temp, BlockSize: 30_000})
			},
			Expired: func(w http.ResponseWriter) {
				ghatest.Refuse(w, http.StatusUnauthorized, "unauthenticated", "expired")
			},
			Full: func(w http.ResponseWriter) {
				ghatest.Refuse(w, http.StatusTooManyRequests, "resource_exhausted", "quota")
			},
			Evict: func(d cache.Descriptor) { srv.Evict(d.Key.String()) },
		}
	})
}

// A layer takes one request of the service for each step, and one of its storage.
func TestRequests(t *testing.T) {
	srv := ghatest.New(t)
	var keys []key.Key
	var steps []cache.Descriptor
	for i := range 12 {
		d, b := storetest.Step(fmt.Sprint(i), fmt.Sprint("content ", i))
		if err := open(t, variables(srv.URL), gha.Options{}).Put(t.Context(), d, b); err != nil {
			t.Fatal(err)
		}
		keys, steps = append(keys, d.Key), append(steps, d)
	}
	if got := srv.Asked()[:4]; !slices.Equal(got, []string{"GetCacheEntryDownloadURL", "CreateCacheEntry", "PUT blob", "FinalizeCacheEntryUpload"}) {
		t.Errorf("a snapshot is stored by %v", got)
	}
	srv.Asked()
	s := open(t, variables(srv.URL), gha.Options{})
	if found, err := s.Find(t.Context(), "layer-x", keys); err != nil || len(found) != 12 {
		t.Fatalf("%d, %v", len(found), err)
	}
	count := func() map[string]int {
		n := make(map[string]int)
		for _, a := range srv.Asked() {
			n[a]++
		}
		return n
	}
	if n := count(); n["GetCacheEntryDownloadURL"] != 12 || n["GET blob"] != 12 || len(n) != 2 {
		t.Errorf("Find: %v", n)
	}
	for _, d := range steps {
		storetest.Read(t, s, d)
	}
	if n := count(); n["GET blob"] != 12 || len(n) != 1 {
		t.Errorf("Fetch: %v", n)
	}
}

// A blob goes to the storage in blocks, and comes in ranges. What describes it may be long.
func TestLarge(t *testing.T) {
	srv := ghatest.New(t)
	content := make([]byte, 40<<20)
	for i := 0; i < len(content); i += 4096 {
		binary.BigEndian.PutUint32(content[i:], uint32(i))
	}
	d, blob := storetest.Step("large", string(content))
	d.Text = strings.Repeat("long ", 20_000)
	if err := open(t, variables(srv.URL), gha.Options{BlockSize: 16 << 20}).Put(t.Context(), d, blob); err != nil {
		t.Fatal(err)
	}
	asked := strings.Join(srv.Asked(), ",")
	if strings.Count(asked, "PUT block,") != 3 || strings.Count(asked, "PUT blocklist") != 1 || strings.Contains(asked, "PUT blob") {
		t.Errorf("stored by %s", asked)
	}
	f, err := storetest.Open(t, open(t, variables(srv.URL), gha.Options{}), d)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// Who may only read is told so once, and reads on.
func TestReadOnly(t *testing.T) {
	srv := ghatest.New(t)
	d, b := storetest.Step("a", "content")
	if err := open(t, variables(srv.URL), gha.Options{}).Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
	other, otherBlob := storetest.Step("b", "other")
	srv.ReadOnly = true
	s := open(t, variables(srv.URL), gha.Options{})
	if err := s.Put(t.Context(), other, otherBlob); !errors.Is(err, cache.ErrReadOnly) {
		t.Errorf("Put: %v", err)
	}
	srv.Asked()
	if err := s.Put(t.Context(), other, otherBlob); !errors.Is(err, cache.ErrReadOnly) || !errors.Is(s.Writable(), cache.ErrReadOnly) || len(srv.Asked()) != 0 {
		t.Errorf("the second Put: %v; Writable: %v", err, s.Writable())
	}
	if got := storetest.Read(t, s, d); got != "content" {
		t.Errorf("%q", got)
	}
	// The runner may say so beforehand.
	environ := variables(srv.URL)
	environ["ACTIONS_CACHE_MODE"] = "read"
	if err := open(t, environ, gha.Options{}).Writable(); !errors.Is(err, cache.ErrReadOnly) {
		t.Errorf("in mode read: %v", err)
	}
}

// Nothing that is shown holds the token, or a signature.
func TestNoSecretIsShown(t *testing.T) {
	srv := ghatest.New(t)
	d, b := storetest.Step("a", "content")
	s := open(t, variables(srv.URL), gha.Options{})
	if err := s.Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
	answers := map[string]func(w http.ResponseWriter, r *http.Request){
		"echo": func(w http.ResponseWriter, r *http.Request) {
			ghatest.Refuse(w, http.StatusBadRequest, "malformed", r.Header.Get("Authorization")+" https://storage.example/x?sig="+ghatest.Signature)
		},
		"cut": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"unauthenticated": func(w http.ResponseWriter, r *http.Request) {
			ghatest.Refuse(w, http.StatusUnauthorized, "unauthenticated", "Bearer "+ghatest.Token)
		},
		"forbidden": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.URL.String(), http.StatusForbidden)
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"ok":true,"matched_key":"x","signed_upload_url":"http://storage.example/?sig=%s","signed_download_url":"http://storage.example/?sig=%[1]s"}`, ghatest.Signature)
		},
	}
	for name, f := range answers {
		for _, at := range []string{"/twirp/", "/actions-cache/"} {
			srv.Change(func() {
				srv.Fault = func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasPrefix(r.URL.Path, at) {
						return false
					}
					f(w, r)
					return true
				}
			})
			s := open(t, variables(srv.URL), gha.Options{})
			other, otherBlob := storetest.Step("b "+name+at, "other")
			_, err1 := s.Find(t.Context(), "", []key.Key{d.Key})
			var blob cache.Blob
			err2 := s.Fetch(t.Context(), d, &blob)
			blob.Close()
			err3 := s.Put(t.Context(), other, otherBlob)
			text := fmt.Sprint(err1, err2, err3)
			if err3 == nil {
				t.Errorf("%s, %s: no error", name, at)
			}
			if strings.Contains(text, ghatest.Token) || strings.Contains(text, ghatest.Signature) {
				t.Errorf("%s, %s: %s", name, at, text)
			}
			srv.Change(func() { srv.Fault = nil })
		}
	}
}

// An address that has expired is asked for again.
func TestExpiredAddress(t *testing.T) {
	srv := ghatest.New(t)
	d, b := storetest.Step("a", "content")
	s := open(t, variables(srv.URL), gha.Options{})
	if err := s.Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(t.Context(), "", []key.Key{d.Key}); err != nil {
		t.Fatal(err)
	}
	refused := false
	srv.Change(func() {
		srv.Fault = func(w http.ResponseWriter, r *http.Request) bool {
			if refused || r.Method != http.MethodGet {
				return false
			}
			refused = true
			http.Error(w, "AuthenticationFailed", http.StatusForbidden)
			return true
		}
	})
	if got := storetest.Read(t, s, d); got != "content" || !refused {
		t.Errorf("%q", got)
	}
}

// What was damaged in the storage is a miss.
func TestDamaged(t *testing.T) {
	srv := ghatest.New(t)
	d, b := storetest.Step("a", "content")
	s := open(t, variables(srv.URL), gha.Options{})
	if err := s.Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
	srv.Damage()
	var blob cache.Blob
	defer blob.Close()
	if err := cache.Fetch(t.Context(), s, d, &blob); !errors.Is(err, cache.ErrNotCached) {
		t.Errorf("%v, want ErrNotCached", err)
	}
}

func TestFindLogin(t *testing.T) {
	for _, tt := range []struct{ url, token, want string }{
		{"", "token", "not set"},
		{"https://results.example/", "", "not set"},
		{"http://results.example/", "token", "want https://HOST"},
		{"https://me:secret@results.example/", "token", "want https://HOST"},
		{"https://results.example/%zz?token=secret", "token", "no URL"},
	} {
		environ := map[string]string{gha.URLVariable: tt.url, gha.TokenVariable: tt.token}
		if _, err := gha.FindLogin(func(name string) string { return environ[name] }); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %q", tt.url, err, tt.want)
		}
	}
}
