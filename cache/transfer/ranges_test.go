package transfer

import (
	"bytes"
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
)

// signing serves data as GitHub does: /blob leads to an address on another host
// that is good until it is revoked.
type signing struct {
	data []byte
	etag string

	mu     sync.Mutex
	signed int
	ranges []string
	valid  map[string]bool
	cdn    *httptest.Server
	front  *httptest.Server
	answer func(n int, w http.ResponseWriter, r *http.Request) bool // true: it has answered
	n      atomic.Int32
	most   atomic.Int32
	now    atomic.Int32
}

func newSigning(t *testing.T, size int) *signing {
	s := &signing{data: content(size), etag: `"v1"`, valid: make(map[string]bool)}
	s.cdn = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(s.n.Add(1))
		if c := s.now.Add(1); c > s.most.Load() {
			s.most.Store(c)
		}
		defer s.now.Add(-1)
		s.mu.Lock()
		ok := s.valid[r.URL.Query().Get("sig")]
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		s.mu.Unlock()
		if r.Header.Get("Authorization") != "" {
			t.Error("Authorization came along the redirect")
		}
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("ETag", s.etag)
		if s.answer != nil && s.answer(n, w, r) {
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
	}))
	s.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.signed++
		sig := fmt.Sprint(s.signed)
		s.valid[sig] = true
		s.mu.Unlock()
		http.Redirect(w, r, s.cdn.URL+"/x?sig="+sig, http.StatusFound)
	}))
	t.Cleanup(func() { s.front.Close(); s.cdn.Close() })
	return s
}

func (s *signing) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.valid)
}

func (s *signing) download(t *testing.T, opt Options) ([]byte, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "blob"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := New(opt)
	derr := c.Download(t.Context(), s.front.URL+"/blob", f, int64(len(s.data)), GetOptions{})
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return got, derr
}

const large = 5*spanSize + 12345

// check downloads the file, and compares it.
func (s *signing) check(t *testing.T, opt Options) {
	t.Helper()
	got, err := s.download(t, opt)
	if err != nil || !bytes.Equal(got, s.data) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(s.data), err)
	}
}

func TestDownloadInRanges(t *testing.T) {
	t.Run("several at a time, by one signature", func(t *testing.T) {
		s := newSigning(t, large)
		var once sync.Once
		both := make(chan struct{})
		s.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 1 && s.now.Load() >= 2 {
				once.Do(func() { close(both) })
			}
			if n > 1 {
				select {
				case <-both:
				case <-time.After(5 * time.Second):
				}
			}
			return false
		}
		s.check(t, Options{})
		if s.most.Load() < 2 || s.most.Load() > spansEach {
			t.Errorf("%d at a time, want 2 to %d", s.most.Load(), spansEach)
		}
		if s.signed != 1 || s.ranges[0] != "bytes=0-0" {
			t.Errorf("signed %d times; first asked for %q", s.signed, s.ranges[0])
		}
	})
	t.Run("a small one has no probe", func(t *testing.T) {
		s := newSigning(t, 2*spanSize-1)
		s.check(t, Options{})
		if len(s.ranges) != 1 || s.ranges[0] != "" {
			t.Errorf("ranges: %q", s.ranges)
		}
	})
	t.Run("no ranges there", func(t *testing.T) {
		s := newSigning(t, large)
		s.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(s.data)))
			w.Write(s.data)
			return true
		}
		s.check(t, Options{})
	})
	t.Run("the signature expires in the midst", func(t *testing.T) {
		s := newSigning(t, large)
		s.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 3 {
				s.revoke()
			}
			return false
		}
		s.check(t, Options{})
		if s.signed < 2 {
			t.Errorf("signed %d times", s.signed)
		}
	})
	t.Run("the file changes in the midst", func(t *testing.T) {
		s := newSigning(t, large)
		s.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 3 {
				w.Header().Set("ETag", `"v2"`)
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data)) // If-Range fails: the whole file
				return true
			}
			return false
		}
		s.check(t, Options{}) // one stream instead
	})
	t.Run("another file is there in the midst", func(t *testing.T) {
		s := newSigning(t, large)
		s.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n <= 3 { // the probe, and two ranges
				return false
			}
			w.Header().Set("Content-Length", "7")
			_, _ = w.Write([]byte("another"))
			return true
		}
		got, err := s.download(t, Options{})
		var size *SizeError
		if !errors.As(err, &size) || string(got) != "another" {
			t.Errorf("%d bytes, %v: what came of the first is there", len(got), err)
		}
	})
	t.Run("shorter than it should be", func(t *testing.T) {
		s := newSigning(t, large)
		whole := s.data
		s.data = whole[:large-1]
		f, _ := os.Create(filepath.Join(t.TempDir(), "x"))
		defer f.Close()
		if err := New(Options{}).Download(t.Context(), s.front.URL, f, large, GetOptions{}); err == nil {
			t.Error("no error")
		}
	})
	t.Run("refused", func(t *testing.T) {
		s := newSigning(t, large)
		s.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		_, err := s.download(t, Options{})
		var status *StatusError
		if !errors.As(err, &status) || status.Code != 404 || strings.Contains(err.Error(), "sig=") {
			t.Errorf("error = %v", err)
		}
	})
}

func TestDownloadInRangesResumes(t *testing.T) {
	cut := func(stall bool) func(t *testing.T) {
		return func(t *testing.T) {
			opt := Options{}
			if stall {
				opt.Stall = 300 * time.Millisecond
			}
			s := newSigning(t, large)
			s.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n < 2 || n > 6 {
					return false
				}
				var from, to int64
				fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(s.data)))
				w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(s.data[from : from+1000])
				w.(http.Flusher).Flush()
				if stall {
					<-r.Context().Done()
				}
				panic(http.ErrAbortHandler)
			}
			s.check(t, opt)
			if s.signed < 2 {
				t.Errorf("signed %d times; what is taken up again wants a fresh address", s.signed)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			resumed := 0
			for _, r := range s.ranges {
				if strings.Contains(r, "1000-") || strings.HasSuffix(strings.Split(strings.TrimPrefix(r, "bytes="), "-")[0], fmt.Sprint(1000)) {
					resumed++
				}
			}
			if resumed == 0 {
				t.Errorf("nothing was taken up where it stopped: %q", s.ranges)
			}
		}
	}
	t.Run("cut", cut(false))
	t.Run("stalled", cut(true))
}

func TestSend(t *testing.T) {
	body := content(3 << 20)
	t.Run("a body that nobody takes", func(t *testing.T) {
		stop := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 1000)
			<-stop
		}))
		defer srv.Close()
		defer close(stop)
		req, _ := http.NewRequest(http.MethodPost, srv.URL+"/x?token=secret", &endless{})
		req.ContentLength = 1 << 40
		start := time.Now()
		_, err := New(Options{Stall: 200 * time.Millisecond}).Send(t.Context(), req)
		if !Unreachable(err) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error = %v", err)
		}
		if d := time.Since(start); d > time.Minute { // it would be without end
			t.Errorf("after %v", d)
		}
	})
	t.Run("a slow one that moves", func(t *testing.T) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got, _ := io.ReadAll(r.Body)
			if !bytes.Equal(got, body) {
				w.WriteHeader(400)
			}
			time.Sleep(3 * time.Second) // longer than a stall: it is being stored
			w.WriteHeader(201)
			io.WriteString(w, "done")
		}))
		defer srv.Close()
		req, _ := http.NewRequest(http.MethodPost, srv.URL, bytes.NewReader(body))
		a, err := New(Options{Stall: 2 * time.Second}).Send(t.Context(), req)
		if err != nil || a.Code != 201 || string(a.Body) != "done" {
			t.Errorf("%v, %v", a, err)
		}
	})
	t.Run("a redirect is an answer", func(t *testing.T) {
		srv := httptest.NewServer(http.RedirectHandler("/elsewhere", http.StatusMovedPermanently))
		defer srv.Close()
		req, _ := http.NewRequest(http.MethodPost, srv.URL, nil)
		if a, err := New(Options{}).Send(t.Context(), req); err != nil || a.Code != 301 {
			t.Errorf("%v, %v", a, err)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
