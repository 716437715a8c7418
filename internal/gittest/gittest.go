// Package gittest serves Git repositories for tests: git's own http-backend, run by
// net/http/cgi on loopback.
package gittest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// User may log in to a server that requires a login, with Password.
const (
	User     = "me"
	Password = "pw-of-the-git-server"
)

// Options are how the server is.
type Options struct {
	Login    bool // it requires one
	ReadOnly bool // nothing can be pushed
	Filter   bool // it has the filter capability
	Old      bool // it knows nothing of protocol version 2
	AnyID    bool // an old one gives reachable objects by their ids

	// Fault answers a request in the server's place; it reports whether it did.
	Fault func(w http.ResponseWriter, r *http.Request) bool
}

// A Server has bare repositories in a directory. Any that is asked for is made.
type Server struct {
	URL string
	Dir string

	opt     Options
	http    *httptest.Server
	backend cgi.Handler

	mu    sync.Mutex
	asked []string
	large map[string][]byte // the files of LFS, by their SHA-256
}

// backend returns the path of git http-backend.
func backend() (string, error) {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return "", errors.New("git is not installed")
	}
	path := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	_, err = os.Stat(path)
	return path, err
}

// Start starts a server of the repositories in dir. The caller closes it.
func Start(dir string, opt Options) (*Server, error) {
	path, err := backend()
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, opt: opt}
	s.backend = cgi.Handler{Path: path, Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "REMOTE_USER=" + User}, Stderr: io.Discard}
	s.http = httptest.NewServer(s)
	s.URL = s.http.URL
	return s, nil
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.URL.RequestURI())
	s.mu.Unlock()
	if s.opt.Fault != nil && s.opt.Fault(w, r) {
		return
	}
	if user, password, _ := r.BasicAuth(); s.opt.Login && (user != User || password != Password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, "a login, please", http.StatusUnauthorized)
		return
	}
	if s.opt.ReadOnly && strings.Contains(r.URL.RequestURI(), "git-receive-pack") {
		http.Error(w, "only readers", http.StatusForbidden)
		return
	}
	if strings.Contains(r.URL.Path, "/info/lfs/") {
		s.serveLarge(w, r)
		return
	}
	if s.opt.Old {
		r.Header.Del("Git-Protocol")
	}
	r.TransferEncoding = nil // cgi refuses what has no length, and git sends it
	s.backend.ServeHTTP(w, r)
}

// Path returns the path of git.
func Path(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	return path
}

// New starts a server that ends with the test. The test is skipped where there is no git.
func New(t testing.TB, opt Options) *Server {
	t.Helper()
	s, err := Start(t.TempDir(), opt)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Close ends the server.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// Repository makes a repository, and returns its URL.
func (s *Server) Repository(name string) (string, error) {
	dir := filepath.Join(s.Dir, name)
	if err := Git("init", "-q", "--bare", "--template=", dir); err != nil {
		return "", err
	}
	settings := map[string]string{"uploadpack.allowFilter": fmt.Sprint(s.opt.Filter), "http.receivepack": "true", "receive.fsckObjects": "true", "gc.auto": "0", "core.fsync": "none"}
	if s.opt.AnyID {
		settings["uploadpack.allowReachableSHA1InWant"] = "true"
	}
	for key, value := range settings {
		if err := Git("-C", dir, "config", key, value); err != nil {
			return "", err
		}
	}
	return s.URL + "/" + name, nil
}

// Git runs git, as nobody in particular.
func Git(args ...string) error {
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// WithLogin returns a URL with the user and the password.
func WithLogin(url string) string {
	return strings.Replace(url, "://", "://"+User+":"+Password+"@", 1)
}

// Asked returns the requests since it was called last.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}
