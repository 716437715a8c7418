//go:build linux

package sharedmounts

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/s3"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/rounds"
	"github.com/clayer/clayer/internal/s3test"
)

// struck sends requests, of which one gets what a fault makes of it, or all from it on.
type struck struct {
	http.RoundTripper
	at   int
	all  bool
	what func(req *http.Request, next http.RoundTripper) (*http.Response, error)

	mu sync.Mutex
	n  int
}

func (s *struck) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	strikes := s.n == s.at || s.all && s.n > s.at
	s.n++
	s.mu.Unlock()
	if strikes {
		return s.what(req, s.RoundTripper)
	}
	return s.RoundTripper.RoundTrip(req)
}

// hit reports whether there was such a request.
func (s *struck) hit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n > s.at
}

var errCut = errors.New("the connection was cut")

type cutBody struct{ io.Reader }

func (cutBody) Close() error { return nil }

func refuse(code int) func(*http.Request, http.RoundTripper) (*http.Response, error) {
	return func(req *http.Request, _ http.RoundTripper) (*http.Response, error) {
		return &http.Response{StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header), Body: http.NoBody, Request: req}, nil
	}
}

// changed answers with what change makes of the body.
func changed(change func([]byte) (io.Reader, int)) func(*http.Request, http.RoundTripper) (*http.Response, error) {
	return func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		body, size := change(data)
		resp.Body, resp.ContentLength = cutBody{body}, int64(size)
		return resp, nil
	}
}

var requestFaults = map[string]func(*http.Request, http.RoundTripper) (*http.Response, error){
	"cut before": func(*http.Request, http.RoundTripper) (*http.Response, error) { return nil, errCut },
	"cut after": func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		return nil, errCut
	},
	"half": changed(func(b []byte) (io.Reader, int) {
		return io.MultiReader(bytes.NewReader(b[:len(b)/2]), strings.NewReader("")), max(len(b), 10)
	}),
	"damaged": changed(func(b []byte) (io.Reader, int) {
		if len(b) > 0 {
			b[len(b)*2/3] ^= 0x41
		}
		return bytes.NewReader(b), len(b)
	}),
	"empty": changed(func([]byte) (io.Reader, int) { return strings.NewReader(""), 0 }),
	"503":   refuse(503),
	"403":   refuse(403),
	"404":   refuse(404),
}

// A bucket that mounts are in.
type bucket struct {
	t     *testing.T
	at    s3.Address
	login s3.Login
}

func newBucket(t *testing.T) *bucket {
	f := s3test.NewFake(t)
	at, err := s3.ParseAddress("s3://bucket/env")
	must(t, at, err)
	environ := map[string]string{"AWS_ENDPOINT_URL_S3": f.URL, "AWS_ACCESS_KEY_ID": s3test.KeyID, "AWS_SECRET_ACCESS_KEY": s3test.Secret}
	login, err := s3.FindLogin(at, func(name string) string { return environ[name] })
	return &bucket{t, at, must(t, login, err)}
}

// open opens it as a new session does, which sends by way of a fault; nil: there is none.
func (b *bucket) open(fault *struck) cache.Store {
	opt := transfer.Options{Retries: -1}
	if fault != nil {
		tr := transfer.NewTransport()
		b.t.Cleanup(tr.CloseIdleConnections)
		fault.RoundTripper = tr
		opt.Transport = fault
	}
	return s3.New(b.at, b.login, s3.Options{Temp: b.t.TempDir(), Transfer: opt})
}

var oneContent = map[string]string{"archive/a": "one", "archive/b/c": strings.Repeat("one ", 20_000), "l": "-> archive/a"}

// check compares what a machine has of a mount with the only contents there may be.
func check(t *testing.T, what string, m *testMounts, contents ...string) (empty bool) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(m.Cache, "mounts"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range left {
		if strings.Contains(e.Name(), staged) || strings.HasPrefix(e.Name(), "part") || strings.Contains(e.Name(), "blob") {
			t.Errorf("%s: left: %s", what, e.Name())
		}
	}
	if empty, err := m.IsEmpty("uv"); err != nil || empty {
		return true
	}
	got := m.read(t, "uv", "archive/a")
	for _, c := range contents {
		if got == c && m.read(t, "uv", "archive/b/c") == strings.Repeat(c+" ", 20_000) && m.read(t, "uv", "l") == c {
			return false
		}
	}
	t.Errorf("%s: content %q, want one of %q whole", what, got, contents)
	return false
}

func contentOne(word string) map[string]string {
	return map[string]string{"archive/a": word, "archive/b/c": strings.Repeat(word+" ", 20_000)}
}

// pulled pulls on a new machine, and returns it.
func pulled(t *testing.T, s cache.Store) (*testMounts, error) {
	t.Helper()
	m := newMounts(t)
	var failed error
	from, d, err := m.Find(t.Context(), []cache.Store{s}, "uv", func(_ cache.Store, err error) { failed = err })
	if err == nil {
		err = m.Pull(t.Context(), from, "uv", d, true)
	}
	return m, errors.Join(err, failed)
}

// Whatever becomes of a request of a pull: the mount is whole or empty, and the next pull
// gets it.
func TestFaultsOfPulls(t *testing.T) {
	for name, what := range requestFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBucket(t)
			a := newMounts(t)
			a.write(t, "uv", oneContent)
			a.push(t, b.open(nil), "uv")
			for _, all := range []bool{false, true} {
				for at := 0; ; at++ {
					f := &struck{at: at, all: all, what: what}
					s := b.open(f)
					m, err := pulled(t, s)
					if empty := check(t, fmt.Sprint("request ", at), m, "one"); empty != (err != nil) {
						t.Errorf("request %d: empty: %t, but %v", at, empty, err)
					}
					if !f.hit() {
						break
					}
					if at == 30 {
						t.Fatal("more than 30 requests")
					}
				}
			}
			m, err := pulled(t, b.open(nil))
			if check(t, "at last", m, "one") || err != nil {
				t.Errorf("at last: %v", err)
			}
		})
	}
}

// Whatever becomes of a request of a push, or if the session ends there: another machine gets
// what was there before, or what was pushed, and the next push replaces it.
func TestFaultsOfPushes(t *testing.T) {
	ended := func(*http.Request, http.RoundTripper) (*http.Response, error) { return nil, errCut }
	faults := map[string]func(*http.Request, http.RoundTripper) (*http.Response, error){"ended": ended}
	for name, what := range requestFaults {
		faults[name] = what
	}
	for name, what := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			every := rounds.Of(9, 5, 1) // of the requests is struck
			for at := len(name) % every; ; at += every {
				b := newBucket(t)
				a := newMounts(t)
				a.write(t, "uv", oneContent)
				a.push(t, b.open(nil), "uv")
				a.write(t, "uv", contentOne("two"))
				p := a.pack(t, "uv")
				f := &struck{at: at, all: name == "ended" || name == "403", what: what}
				ctx, end := context.WithCancel(t.Context())
				if name == "ended" {
					f.what = func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
						end()
						return ended(req, next)
					}
				}
				_, err := p.Push(ctx, b.open(f), func() {})
				end()
				p.Close()
				m, perr := pulled(t, b.open(nil))
				if check(t, fmt.Sprint("request ", at), m, "one", "two") {
					t.Errorf("request %d: nothing to pull: %v; push: %v", at, perr, err)
				}
				a.write(t, "uv", contentOne("three"))
				a.push(t, b.open(nil), "uv")
				if m, err := pulled(t, b.open(nil)); check(t, "afterwards", m, "three") || err != nil {
					t.Errorf("request %d: afterwards: %v", at, err)
				}
				if list, err := List(t.Context(), b.open(nil)); err != nil || len(list) != 1 {
					t.Errorf("request %d: %d mounts are listed, %v", at, len(list), err)
				}
				if !f.hit() {
					break
				}
				if at > 40 {
					t.Fatal("more than 40 requests")
				}
			}
		})
	}
}

// Two machines push at the same time: the content of one of them counts, whole, and the next
// push replaces it.
func TestTwoPushers(t *testing.T) {
	for name, make := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			open := make(t)
			for range rounds.Of(1, 1, 5) {
				var wg sync.WaitGroup
				var machines []*testMounts
				for _, word := range []string{"one", "two"} {
					m, s := newMounts(t), open()
					m.write(t, "uv", contentOne(word))
					if err := os.Symlink("archive/a", filepath.Join(m.dir("uv"), "l")); err != nil {
						t.Fatal(err)
					}
					machines = append(machines, m)
					p := m.pack(t, "uv")
					wg.Go(func() {
						defer p.Close()
						if _, err := p.Push(t.Context(), s, func() {}); err != nil {
							t.Logf("%s: %v", word, err) // the other was faster
						}
					})
				}
				wg.Wait()
				m, err := pulled(t, open())
				if check(t, "afterwards", m, "one", "two") {
					t.Errorf("nothing to pull: %v", err)
				}
				machines[0].write(t, "uv", contentOne("three"))
				machines[0].push(t, open(), "uv")
				if m, err := pulled(t, open()); check(t, "at last", m, "three") || err != nil {
					t.Errorf("at last: %v", err)
				}
			}
		})
	}
}

// What another tool has packed is held to the same: nothing is written beside the mount, and
// no bit lets a program be another user.
func TestHostileTars(t *testing.T) {
	dirEntry := tar.Header{Typeflag: tar.TypeDir, Name: "mount/", Mode: 0o755}
	for name, headers := range map[string][]tar.Header{
		"above":                {dirEntry, {Typeflag: tar.TypeReg, Name: "mount/../out", Mode: 0o644}},
		"the directory above":  {dirEntry, {Typeflag: tar.TypeDir, Name: "mount/..", Mode: 0o755}},
		"two above":            {dirEntry, {Typeflag: tar.TypeReg, Name: "mount/a/../../../out", Mode: 0o644}},
		"absolute":             {dirEntry, {Typeflag: tar.TypeReg, Name: "/out", Mode: 0o644}},
		"through a link":       {dirEntry, {Typeflag: tar.TypeSymlink, Name: "mount/l", Linkname: "."}, {Typeflag: tar.TypeReg, Name: "mount/l/x", Mode: 0o644}},
		"a name twice":         {dirEntry, {Typeflag: tar.TypeReg, Name: "mount/x", Mode: 0o644}, {Typeflag: tar.TypeSymlink, Name: "mount/x", Linkname: "y"}},
		"a hard link out":      {dirEntry, {Typeflag: tar.TypeLink, Name: "mount/x", Linkname: "../out"}},
		"a hard link to a dir": {dirEntry, {Typeflag: tar.TypeLink, Name: "mount/x", Linkname: "mount"}},
		"a device":             {dirEntry, {Typeflag: tar.TypeChar, Name: "mount/null", Devmajor: 1, Devminor: 3}},
		"a whiteout":           {dirEntry, {Typeflag: tar.TypeReg, Name: "mount/.wh.x"}},
		"no mount":             {{Typeflag: tar.TypeReg, Name: "x"}},
		"set-user-id":          {dirEntry, {Typeflag: tar.TypeReg, Name: "mount/su", Mode: 0o6755}, {Typeflag: tar.TypeDir, Name: "mount/d", Mode: 0o7777}},
	} {
		t.Run(name, func(t *testing.T) {
			var text bytes.Buffer
			z, err := zstd.NewWriter(&text)
			must(t, z, err)
			w := tar.NewWriter(z)
			for _, h := range headers {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(w.Close(), z.Close()); err != nil {
				t.Fatal(err)
			}
			blob, err := cache.Create("")
			must(t, blob, err)
			defer blob.Close()
			if _, err := blob.Write(text.Bytes()); err != nil {
				t.Fatal(err)
			}
			blob.Packed(digest.FromBytes(text.Bytes()))
			top := t.TempDir()
			in, err := os.OpenRoot(top)
			must(t, in, err)
			defer in.Close()
			err = unpack(t.Context(), in, "new", blob, cache.Descriptor{Size: int64(text.Len())}, 1<<20)
			if name == "set-user-id" {
				for _, at := range []string{"su", "d"} {
					info, serr := os.Lstat(filepath.Join(top, "new", at))
					if err != nil || serr != nil || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
						t.Errorf("%s: %v, %v, %v", at, info, serr, err)
					}
				}
				return
			}
			if err == nil {
				t.Error("no error")
			}
			if names, rerr := os.ReadDir(top); rerr != nil || len(names) != 1 {
				t.Errorf("beside the mount: %v, %v", names, rerr)
			}
		})
	}
}
