// Package githubtest is a GitHub for tests, on loopback: it keeps state, pages
// its lists, signs redirects to a second host, and can be told to fail.
package githubtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// TB is what of testing.TB a Server needs; a testscript has no more.
type TB interface {
	Errorf(format string, args ...any)
	Cleanup(func())
}

// Server is a GitHub with its download host. Its fields may be changed while
// nobody asks.
type Server struct {
	URL      string // of the API (at /) and the server (at /)
	CDN      string // of the second host
	Uploads  string // that uploads are sent to: below /uploads of URL, unless it is changed
	Archives string // of the host of archives: the second one, unless it is changed

	PageSize int           // at most 100; 0 means 100
	Skew     time.Duration // how far the server's clock is ahead
	Latency  time.Duration // before each answer
	Rate     int64         // bytes a second that the second host sends, to all together; 0 means no bound
	NoRanges bool          // the second host has no ranges
	NoDigest bool          // assets tell no digest, as on old servers
	OneUse   bool          // a signed address is good for one request

	// BlobLimit is GitHub's bound of an asset; 0 means 2 GiB.
	BlobLimit int64

	t      TB
	mu     sync.Mutex
	repos  map[string]*repo
	tokens map[string]string // token → "read" or "write"
	nextID int64
	signed map[string]func() []byte
	asked  []string
	faults []*Fault
	rate   int // requests left; negative: no limit
	reset  time.Time
	sent   time.Time // when what was sent last is through, at Rate
}

// A Fault is something that goes wrong, for requests whose "METHOD /path" has
// the text Match in it.
type Fault struct {
	Match string
	After int // how many such requests go well before
	Times int // how many go wrong; 0 means 1, negative all

	Status  int // answered instead; 0 for the real answer
	Header  http.Header
	Body    string // JSON, or not
	Done    bool   // the request takes effect all the same; its answer is lost
	Starter bool   // of an upload: a broken asset is left
	CutAt   int    // the connection ends after so many bytes of the answer
	Stall   time.Duration
	Do      func() // called before the answer
}

// New starts a GitHub that stops with the test.
func New(t TB) *Server {
	s := &Server{t: t, repos: make(map[string]*repo), tokens: make(map[string]string), signed: make(map[string]func() []byte), rate: -1}
	main := httptest.NewServer(http.HandlerFunc(s.serve))
	cdn := httptest.NewServer(http.HandlerFunc(s.serveCDN))
	s.URL, s.CDN, s.Uploads, s.Archives = main.URL, cdn.URL, main.URL+"/uploads", cdn.URL
	t.Cleanup(func() { main.Close(); cdn.Close() })
	return s
}

// Handler answers what is sent to URL, CDN or Archives, without a connection. What is sent
// to Uploads is below /uploads.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(s.CDN, "://"+r.Host) || strings.HasSuffix(s.Archives, "://"+r.Host) {
			s.serveCDN(w, r)
		} else {
			s.serve(w, r)
		}
	})
}

// Token makes a token known: it may "read" or "write".
func (s *Server) Token(token, may string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = may
}

// Fail adds a fault.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	s.faults = append(s.faults, &f)
}

// Limit sets how many requests are left, until reset by the server's clock.
func (s *Server) Limit(n int, reset time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rate, s.reset = n, reset
}

// Asked returns the requests so far, "GET /repos/o/r/releases", and forgets
// them. Those to the second host begin with "CDN".
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// Now returns the server's time.
func (s *Server) Now() time.Time { return time.Now().Add(s.Skew).UTC() }

// fault returns what goes wrong for a request, or nil. Its caller holds s.mu.
func (s *Server) fault(what string) *Fault {
	for _, f := range s.faults {
		if !strings.Contains(what, f.Match) || f.Times == 0 {
			continue
		}
		if f.After > 0 {
			f.After--
			continue
		}
		f.Times--
		return f
	}
	return nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	what := r.Method + " " + r.URL.Path
	if q := r.URL.Query().Get("name"); q != "" {
		what += "?name=" + q
	}
	time.Sleep(s.Latency)
	s.mu.Lock()
	s.asked = append(s.asked, what)
	f := s.fault(what)
	s.mu.Unlock()
	if f == nil {
		s.answer(w, r, nil)
		return
	}
	s.broken(w, r, f, func(w http.ResponseWriter) { s.answer(w, r, f) })
}

// broken answers as a fault says.
func (s *Server) broken(w http.ResponseWriter, r *http.Request, f *Fault, real func(http.ResponseWriter)) {
	if f.Stall > 0 && f.CutAt == 0 {
		select {
		case <-time.After(f.Stall):
		case <-r.Context().Done():
		}
	}
	if f.Done || f.Starter {
		real(httptest.NewRecorder())
	} else if f.Status != 0 {
		io.Copy(io.Discard, r.Body)
	}
	if f.Do != nil {
		f.Do()
	}
	switch {
	case f.Status != 0:
		w.Header().Set("Date", s.Now().Format(http.TimeFormat))
		for k, v := range f.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(f.Status)
		io.WriteString(w, f.Body)
	case f.CutAt > 0:
		real(&cutter{ResponseWriter: w, left: f.CutAt, stall: f.Stall, done: r.Context().Done()})
	case !f.Done && !f.Starter:
		real(w)
	default:
		panic(http.ErrAbortHandler)
	}
}

// cutter ends the connection after a number of bytes, or goes silent there.
type cutter struct {
	http.ResponseWriter
	left  int
	stall time.Duration
	done  <-chan struct{}
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) >= c.left {
		c.ResponseWriter.Write(p[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		if c.stall > 0 {
			select {
			case <-time.After(c.stall):
			case <-c.done:
			}
		}
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

// sign makes an address on a host, the second or that of archives, that is good for a while.
func (s *Server) sign(host string, content func() []byte) string {
	s.nextID++
	id := fmt.Sprintf("/signed/%d", s.nextID)
	s.signed[id] = content
	return host + id + "?sig=secret-signature&se=soon"
}

// Expire makes all signed addresses invalid.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.signed)
}

func (s *Server) serveCDN(w http.ResponseWriter, r *http.Request) {
	if a := r.Header.Get("Authorization"); a != "" {
		s.t.Errorf("the second host got Authorization: %.10s…", a)
	}
	time.Sleep(s.Latency)
	s.mu.Lock()
	what := "CDN " + r.Method + " " + r.URL.Path
	s.asked = append(s.asked, what+rangeOf(r))
	content, ok := s.signed[r.URL.Path]
	if s.OneUse {
		delete(s.signed, r.URL.Path)
	}
	f := s.fault(what)
	noRanges := s.NoRanges
	s.mu.Unlock()
	answer := func(w http.ResponseWriter) {
		if s.Rate > 0 {
			w = &paced{w, s}
		}
		if !ok || r.URL.Query().Get("sig") == "" {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code></Error>")
			return
		}
		data := content()
		// Of a large file not all: it is asked for in ranges.
		w.Header().Set("ETag", fmt.Sprintf(`"%d-%.16s"`, len(data), digest.FromBytes(data[:min(len(data), 4096)]).Encoded()))
		w.Header().Set("Content-Type", "application/octet-stream")
		if noRanges {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	if f != nil {
		s.broken(w, r, f, answer)
		return
	}
	answer(w)
}

// lag is how far what is sent may lag the Rate and catch up: a sleep that is
// too long takes nothing from a network.
const lag = 10 * time.Millisecond

// paced is an answer that comes at the server's Rate.
type paced struct {
	http.ResponseWriter
	s *Server
}

func (p *paced) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		part := b[:min(len(b), 64<<10)]
		p.s.mu.Lock()
		now := time.Now()
		if most := now.Add(-lag); p.s.sent.Before(most) {
			p.s.sent = most
		}
		p.s.sent = p.s.sent.Add(time.Duration(len(part)) * time.Second / time.Duration(p.s.Rate))
		wait := p.s.sent.Sub(now)
		p.s.mu.Unlock()
		time.Sleep(wait)
		var k int
		k, err = p.ResponseWriter.Write(part)
		n, b = n+k, b[len(part):]
	}
	return n, err
}

func rangeOf(r *http.Request) string {
	if h := r.Header.Get("Range"); h != "" {
		return " " + h
	}
	return ""
}

// may returns what a request's token may do: "", "read", "write", or "bad".
func (s *Server) may(r *http.Request) string {
	h := r.Header.Get("Authorization")
	if h == "" {
		return ""
	}
	token, ok := strings.CutPrefix(h, "Bearer ")
	if _, pass, basic := r.BasicAuth(); basic {
		token, ok = pass, true
	}
	if m := s.tokens[token]; ok && m != "" {
		return m
	}
	return "bad"
}

func fail(w http.ResponseWriter, code int, message string, errs ...map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-GitHub-Request-Id", "1")
	w.WriteHeader(code)
	body := map[string]any{"message": message, "documentation_url": "https://docs.github.com/rest"}
	if len(errs) > 0 {
		body["errors"] = errs
	}
	json.NewEncoder(w).Encode(body)
}

// send answers with JSON, or 304 where the asker has the same.
func (s *Server) send(w http.ResponseWriter, r *http.Request, code int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	if text, ok := v.(string); ok {
		data = []byte(text)
	}
	etag := `W/"` + digest.FromBytes(append([]byte(r.Header.Get("Authorization")), data...)).Encoded() + `"`
	w.Header().Set("ETag", etag)
	w.Header().Set("X-GitHub-Request-Id", "1")
	if r.Method == http.MethodGet && r.Header.Get("If-None-Match") == etag {
		if r.Header.Get("Authorization") != "" && s.rate >= 0 {
			s.rate++ // not counted
		}
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	w.Write(data)
}

// Heal ends all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}
