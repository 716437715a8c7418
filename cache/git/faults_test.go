package git_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/gittest"
)

// command runs git for a test.
func command(t testing.TB, args ...string) {
	t.Helper()
	if err := gittest.Git(args...); err != nil {
		t.Fatal(err)
	}
}

// project makes a repository with settings, for Options.Dir.
func project(t testing.TB, settings ...string) string {
	t.Helper()
	dir := t.TempDir()
	command(t, "init", "-q", dir)
	for i := 0; i < len(settings); i += 2 {
		command(t, "-C", dir, "config", settings[i], settings[i+1])
	}
	return dir
}

func find(s *git.Store, ds ...cache.Descriptor) (map[key.Key]cache.Found, error) {
	var keys []key.Key
	for _, d := range ds {
		keys = append(keys, d.Key)
	}
	return s.Find(context.Background(), "", keys)
}

func put(t testing.TB, s *git.Store, name, content string) (cache.Descriptor, error) {
	t.Helper()
	d, b := storetest.Step(name, content)
	defer b.Close()
	return d, s.Put(t.Context(), d, b)
}

// The configuration of the working directory says how the server is reached.
func TestConfigurationOfTheWorkingDirectory(t *testing.T) {
	srv := gittest.New(t, gittest.Options{Login: true})
	url := repository(t, srv, "env.git")
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte(gittest.WithLogin(srv.URL)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := fill(t, open(t, gittest.WithLogin(url)), 3)
	basic := base64.StdEncoding.EncodeToString([]byte(gittest.User + ":" + gittest.Password))
	for _, tt := range []struct {
		name, url string
		settings  []string
		asked     int
	}{
		{"a header", url, []string{"http." + srv.URL + "/.extraheader", "AUTHORIZATION: basic " + basic}, 5},
		{"a credential helper", url, []string{"credential.helper", "store --file=" + file}, 6},
		{"another address", "https://git.example.com/env.git", []string{"url." + gittest.WithLogin(srv.URL) + "/.insteadOf", "https://git.example.com/"}, 7},
		{"the origin", "", []string{"remote.origin.url", gittest.WithLogin(url)}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opt := options(t)
			opt.Dir = project(t, tt.settings...)
			addr, err := parse(t, tt.url).FindOrigin(t.Context(), opt.Dir)
			if err != nil {
				t.Fatal(err)
			}
			srv.Asked()
			restore(t, git.New(addr, opt), m)
			if asked := srv.Asked(); len(asked) > tt.asked+2 { // snapshots may come in two groups
				t.Errorf("%d requests, want %d:\n%s", len(asked), tt.asked, strings.Join(asked, "\n"))
			}
		})
	}
}

// A server that answers once as it should not costs a try, and nothing else.
func TestTransientFaults(t *testing.T) {
	for name, fault := range map[string]func(w http.ResponseWriter, next http.HandlerFunc, r *http.Request){
		"an error": func(w http.ResponseWriter, _ http.HandlerFunc, _ *http.Request) {
			http.Error(w, "later", http.StatusServiceUnavailable)
		},
		"a cut": func(http.ResponseWriter, http.HandlerFunc, *http.Request) { panic(http.ErrAbortHandler) },
		"no answer": func(_ http.ResponseWriter, _ http.HandlerFunc, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or nobody would see that the client is gone
			<-r.Context().Done()
		},
		"half an answer": func(w http.ResponseWriter, next http.HandlerFunc, r *http.Request) {
			half(w, next, r, func(body []byte) []byte { return body[:len(body)/2] })
		},
		"damage": func(w http.ResponseWriter, next http.HandlerFunc, r *http.Request) {
			half(w, next, r, func(body []byte) []byte { body[len(body)*2/3] ^= 0x40; return body })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := gittest.New(t, gittest.Options{})
			url := repository(t, srv, "env.git")
			m := fill(t, open(t, url), 2)
			for _, at := range []int32{0, 2, 4} { // the first, the list, the snapshots
				if name == "damage" && at == 0 {
					continue // a name or id that is damaged is one that is not there
				}
				var n atomic.Int32
				front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if n.Add(1) == at+1 {
						fault(w, srv.ServeHTTP, r)
						return
					}
					srv.ServeHTTP(w, r)
				}))
				opt := options(t)
				opt.Stall = time.Second
				restore(t, git.New(parse(t, strings.Replace(url, srv.URL, front.URL, 1)), opt), m)
				front.CloseClientConnections()
				front.Close()
			}
		})
	}
}

// half answers with what change makes of the server's answer.
func half(w http.ResponseWriter, next http.HandlerFunc, r *http.Request, change func([]byte) []byte) {
	rec := httptest.NewRecorder()
	next(rec, r)
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
	w.WriteHeader(rec.Code)
	_, _ = w.Write(change(rec.Body.Bytes()))
}

// A refusal is reported with what to do, without the password, and is final.
func TestRefusals(t *testing.T) {
	refuse := func(code int, only string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.RequestURI(), only) {
				http.Error(w, "no", code)
			}
			return strings.Contains(r.URL.RequestURI(), only)
		}
	}
	for _, tt := range []struct {
		name  string
		opt   gittest.Options
		path  string
		want  string
		reads bool // all the same
	}{
		{"a wrong login", gittest.Options{Login: true}, "env.git", "/env.git requires a login", false},
		{"readers alone", gittest.Options{ReadOnly: true}, "env.git", "not allowed to push to http://", true},
		{"nobody", gittest.Options{Fault: refuse(403, "")}, "env.git", "not allowed to read http://", false},
		{"no repository", gittest.Options{}, "none.git", "there is no repository http://", false},
		{"too large", gittest.Options{Fault: refuse(413, "service=git-receive-pack")}, "env.git", "does not take so much in one push", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := gittest.New(t, tt.opt)
			repository(t, srv, "env.git")
			s := open(t, strings.Replace(srv.URL, "://", "://me:wrong-password@", 1)+"/"+tt.path)
			_, err := put(t, s, "a", "a")
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "wrong-password") {
				t.Errorf("%v, want %q", err, tt.want)
			}
			srv.Asked()
			if _, again := put(t, s, "b", "b"); again == nil || s.Writable() == nil || len(srv.Asked()) > 0 {
				t.Errorf("asked again: %v", again)
			}
			if _, err := s.List(t.Context()); (err == nil) != tt.reads {
				t.Errorf("List: %v", err)
			}
		})
	}
}

// A proxy that does not connect to the host refuses for good; one that is overloaded does not.
func TestProxyThatRefuses(t *testing.T) {
	for code, asked := range map[int]int32{http.StatusForbidden: 1, http.StatusBadGateway: 2} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			var connects atomic.Int32
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				connects.Add(1)
				http.Error(w, "no", code)
			}))
			defer proxy.Close()
			opt := options(t)
			opt.Dir = project(t, "http.proxy", proxy.URL)
			s := git.New(parse(t, "https://git.example/env.git"), opt)
			if _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), "git.example/env.git") {
				t.Errorf("%v", err)
			}
			if n := connects.Load(); n < asked || asked == 1 && n > 1 {
				t.Errorf("asked %d times, want %d", n, asked)
			}
			before := connects.Load()
			if _, err := s.List(t.Context()); err == nil || connects.Load() > before {
				t.Errorf("asked again: %v", err)
			}
		})
	}
}

// What the server's garbage collector took is a miss, and what it left is not.
func TestObjectsThatAreGone(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	url := repository(t, srv, "env.git")
	m := fill(t, open(t, url), 2)
	s := open(t, url)
	if found, err := find(s, m.Steps...); err != nil || len(found) != 2 {
		t.Fatal(found, err)
	}
	other := open(t, url)
	if _, err := other.Remove(t.Context(), []cache.Manifest{m}); err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, other, "step 1", strings.Repeat("content 1 ", 20_000)); err != nil { // its bytes are there again
		t.Fatal(err)
	}
	command(t, "-C", filepath.Join(srv.Dir, "env.git"), "gc", "-q", "--prune=now")
	var wg sync.WaitGroup
	for i, d := range m.Steps {
		wg.Go(func() {
			var b cache.Blob
			defer b.Close()
			err := cache.Fetch(t.Context(), s, d, &b)
			if i == 0 && !errors.Is(err, cache.ErrNotCached) || i == 1 && err != nil {
				t.Errorf("step %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// Nothing of several writers is lost, nor of one beside whom layers are removed.
func TestSeveralWriters(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{Filter: true})
	url := repository(t, srv, "env.git")
	old := fill(t, open(t, url), 1)
	var wg sync.WaitGroup
	steps := make([]cache.Descriptor, 5)
	for i := range steps {
		s := open(t, url)
		wg.Go(func() {
			var err error
			if steps[i], err = put(t, s, fmt.Sprint("of writer ", i), fmt.Sprint("content of writer ", i)); err != nil {
				t.Error(err)
			}
			if err := s.Complete(t.Context(), storetest.Layer(fmt.Sprint("layer", i), i, steps[i])); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		if _, err := open(t, url).Remove(t.Context(), []cache.Manifest{old}); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	s := open(t, url)
	list, err := s.List(t.Context())
	if err != nil || len(list) != len(steps) {
		t.Errorf("%d layers, want %d; %v", len(list), len(steps), err)
	}
	for i, d := range steps {
		if got := storetest.Read(t, s, d); got != fmt.Sprint("content of writer ", i) {
			t.Errorf("%q", got)
		}
	}
}

// A writer whose connection ends at any request, and that does not come back, leaves
// nothing by halves.
func TestAWriterThatIsCutOff(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	for at := range int32(8) {
		url := repository(t, srv, fmt.Sprintf("env%d.git", at))
		var n atomic.Int32
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) > at {
				_, _ = io.CopyN(io.Discard, r.Body, 100)
				panic(http.ErrAbortHandler)
			}
			srv.ServeHTTP(w, r)
		}))
		opt := options(t)
		opt.Transfer = transfer.Options{Retries: -1}
		s := git.New(parse(t, strings.Replace(url, srv.URL, front.URL, 1)), opt)
		d, err := put(t, s, "a", "content")
		if err == nil {
			err = s.Complete(t.Context(), storetest.Layer("base", 1, d))
		}
		front.Close()
		next := open(t, url)
		found, ferr := find(next, d)
		if ferr != nil {
			t.Fatalf("at request %d: %v, after %v", at, ferr, err)
		}
		if len(found) == 0 {
			if _, err := put(t, next, "a", "content"); err != nil {
				t.Errorf("at request %d: %v", at, err)
			}
		}
		if got := storetest.Read(t, next, d); got != "content" {
			t.Errorf("at request %d: %q", at, got)
		}
		command(t, "-C", filepath.Join(srv.Dir, fmt.Sprintf("env%d.git", at)), "fsck", "--strict")
	}
}

// A caller that goes away in the midst of a push leaves those whose snapshots were in it
// to another push.
func TestACallerThatGoesAway(t *testing.T) {
	t.Parallel()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	first, waits := make(chan bool), make(chan bool)
	var pushes atomic.Int32
	srv := gittest.New(t, gittest.Options{Fault: func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "git-receive-pack") {
			return false
		}
		switch pushes.Add(1) {
		case 1:
			close(first)
			<-waits
		case 2:
			leave()
			_, _ = io.Copy(io.Discard, r.Body) // or nobody would see that the client is gone
			select {
			case <-r.Context().Done():
			case <-time.After(3 * time.Second):
				t.Log("the third pushes")
			}
			return true
		}
		return false
	}})
	url := repository(t, srv, "env.git")
	s := open(t, url)
	var wg sync.WaitGroup
	var steps [3]cache.Descriptor
	for i := range steps {
		d, b := storetest.Step(fmt.Sprint("step ", i), fmt.Sprint("content ", i))
		steps[i] = d
		of := t.Context()
		if i == 1 {
			of = ctx
		}
		wg.Go(func() {
			defer b.Close()
			if err := s.Put(of, d, b); err != nil && i != 1 {
				t.Errorf("step %d: %v", i, err)
			}
		})
		if i == 0 {
			<-first
		}
		time.Sleep(100 * time.Millisecond) // the second usually waits before the third
	}
	close(waits)
	wg.Wait()
	for i, d := range steps {
		if i == 1 {
			continue
		}
		if got := storetest.Read(t, open(t, url), d); got != fmt.Sprint("content ", i) {
			t.Errorf("step %d: %q", i, got)
		}
	}
}
