//go:build linux

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/hook"
)

// trap is a proxy that nobody may connect to. It returns the variables with
// which clayer would use it for every host.
func trap(t *testing.T) []string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line := make([]byte, 200)
			n, _ := c.Read(line)
			t.Errorf("somebody was asked: %q", line[:n])
			c.Close()
		}
	}()
	proxy := "http://" + l.Addr().String()
	return []string{
		"HTTP_PROXY=" + proxy, "HTTPS_PROXY=" + proxy, "http_proxy=" + proxy, "https_proxy=" + proxy, "NO_PROXY=", "no_proxy=",
		"GITHUB_API_URL=http://api.example.com", "GITHUB_SERVER_URL=http://example.com", "GH_TOKEN=ghp_test0123456789",
	}
}

func TestOfflineAsksNobody(t *testing.T) {
	w := newWorkspace(t)
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/dated" {
			rw.Header().Set("ETag", `"1"`)
		}
		io.WriteString(rw, "content of "+r.URL.Path)
	}))
	defer srv.Close()
	env := trap(t)
	// Where a request would show: URLs and a repository on hosts that the trap
	// stands before, both kinds of stores, a commit that enters the keys.
	w.write("Containerfile", "FETCH "+srv.URL+"/dated /opt\nFETCH "+srv.URL+"/plain /opt\n")
	w.write("Containerfile.url", "FETCH http://example.com/x /opt\n")
	w.write("Containerfile.tree", "FETCH github:me/tools /opt\n")
	w.write("Containerfile.copy", "COPY Containerfile /opt/\n")
	stores := []string{"--repo=me/env", "--store=oci:registry.example.com/me/env"}
	run := func(want string, args ...string) {
		t.Helper()
		cmd := w.command(args...)
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		fails := want == "offline" || args[0] == "check"
		if (err != nil) != fails || !strings.Contains(string(out), want) {
			t.Errorf("clayer %s: %v, want %q in\n%s", strings.Join(args, " "), err, want, out)
		}
	}
	// With the network, to have something to fall back on.
	run("2 ran", "solve", "--root=root", "-f", "Containerfile")
	before := asked.Load()
	if before == 0 {
		t.Fatal("nothing was fetched")
	}
	with := func(args ...string) []string { return append(append(args, "--offline"), stores...) }
	for _, verb := range []string{"plan", "solve", "build", "restore", "hash", "run"} {
		args := with(verb, "--root=root")
		file := []string{"-f", "Containerfile"}
		fails := [][]string{{"-f", "Containerfile.url"}, {"-f", "Containerfile.tree"}, {"-f", "Containerfile.copy", "--invalidate-on=me/tools"}}
		if verb == "build" || verb == "restore" || verb == "hash" {
			file = []string{"Containerfile"}
			fails = [][]string{{"Containerfile.url"}, {"Containerfile.tree"}, {"Containerfile.copy", "--invalidate-on=me/tools"}}
		}
		command := []string{}
		if verb == "run" {
			command = []string{"--", "true"}
		}
		run("", append(append(args, file...), command...)...)
		for _, f := range fails {
			run("offline", append(append(args, f...), command...)...)
		}
	}
	run("FetchNoChecksum", "check", "Containerfile.url", "Containerfile.tree") // warns, and so fails
	run("", with("compose", "--root=root", "Containerfile")...)
	run("", with("status", "--root=root", "--exit-code", "Containerfile")...)
	run("layer-", "cache", "ls", "--offline")
	run("offline", with("cache", "ls")...)
	run("offline", with("cache", "push")...)
	run("offline", with("cache", "pull")...)
	run("", with("doctor", "--root=root")...)
	run("offline", "init", "boot", "--release=v1.2.3", "--print", "--offline")
	if n := asked.Load(); n != before {
		t.Errorf("the sources were asked %d times", n-before)
	}
	// The boot script downloads no clayer either; it says so.
	files, err := hook.Files("boot", hook.Options{Version: "v1.2.3", Pins: []string{strings.Repeat("0", 64)}})
	if err != nil {
		t.Fatal(err)
	}
	w.write("boot.sh", string(files[0].Text))
	cmd := exec.Command("sh", "boot.sh")
	cmd.Dir = w.dir
	cmd.Env = append(append(os.Environ(), env...), "CLAYER_OFFLINE=true", strict, "HOME="+w.dir, "CLAYER_DOWNLOAD_URL=http://example.com")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "offline") {
		t.Errorf("boot: %v\n%s", err, out)
	}
}

// A registry that refuses, or answers like none, costs one warning and a moment.
func TestSolveWithAnUnusableRegistry(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	page := "<!DOCTYPE html><title>log in</title>" + strings.Repeat("<p>please</p>", 100)
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		says   string
		most   int32 // requests
	}{
		"403": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, "requires authentication to read me/env", 4},
		"401": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }, "requires a login for me/env", 4},
		"a realm that nobody is at": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Www-Authenticate", `Bearer realm="`+gone.URL+`/token",service="s"`)
			w.WriteHeader(401)
		}, "connection refused", 12},
		"html": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, page)
		}, "", 40},
		"cut": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "unexpected EOF", 60},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorkspace(t)
			var asked atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				tt.answer(rw, r)
			}))
			defer srv.Close()
			w.write("Containerfile", "COPY one /opt/\nCOPY two /opt/\nCOPY three /opt/\n")
			for _, f := range []string{"one", "two", "three"} {
				w.write(f, f)
			}
			start := time.Now()
			_, stderr, code := w.run("solve", "--root=root", "-f", "Containerfile", "--store=oci:"+strings.TrimPrefix(srv.URL, "http://")+"/me/env")
			t.Logf("%v, %d requests\n%s", time.Since(start), asked.Load(), stderr)
			if code != 0 || strings.Count(stderr, "warning:") != 1 || !strings.Contains(stderr, "warning: store oci: ") || !strings.Contains(stderr, tt.says) {
				t.Errorf("exit code %d, want one warning that says %q in\n%s", code, tt.says, stderr)
			}
			if n := asked.Load(); n > tt.most {
				t.Errorf("%d requests, want at most %d", n, tt.most)
			}
		})
	}
}

// Two registries are told apart in what is said of them.
func TestRegistriesHaveNamesOfTheirOwn(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(http.StatusForbidden) }))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	w := newWorkspace(t)
	w.write("Containerfile", "COPY Containerfile /opt/\n")
	_, stderr, code := w.run("solve", "--root=root", "-f", "Containerfile", "--store=oci:"+host+"/me/one", "--store=oci:"+host+"/me/two")
	for _, repo := range []string{"/me/one", "/me/two"} {
		if code != 0 || strings.Count(stderr, "warning: store oci:"+host+repo+": ") != 1 {
			t.Errorf("exit code %d, want one warning of oci:%s in\n%s", code, host+repo, stderr)
		}
	}
}

// A refused connection is an answer: it costs no 30 seconds. A service of this
// machine may be about to start, and gets 4.
func TestRefusedConnectionIsFinal(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	w := newWorkspace(t)
	w.write("Containerfile", "FETCH "+gone.URL+"/x /opt\n")
	start := time.Now()
	_, stderr, code := w.run("solve", "--root=root", "-f", "Containerfile")
	host := strings.TrimPrefix(gone.URL, "http://")
	if code != 1 || !strings.Contains(stderr, "connection refused (tried ") || strings.Count(stderr, "waiting for "+host+": connection refused\n") != 1 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// A private host that the user names may be led to by a public one.
func TestRedirectToAnAllowedHost(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Host == "example.com" {
			http.Redirect(rw, r, "http://10.0.0.7/x", http.StatusFound)
			return
		}
		io.WriteString(rw, "from "+r.Host)
	}))
	defer proxy.Close()
	for allow, want := range map[string]string{"": "to a private address\n  1 | FETCH http://example.com/x /opt\nhint: --allow-redirect=10.0.0.7 allows it", "storage.example.com,10.0.0.7": "1 ran"} {
		w := newWorkspace(t)
		w.write("Containerfile", "FETCH http://example.com/x /opt\n")
		cmd := w.command("solve", "--root=root", "-f", "Containerfile")
		cmd.Env = append(cmd.Env, "HTTP_PROXY="+proxy.URL, "http_proxy="+proxy.URL, "NO_PROXY=", "no_proxy=", "CLAYER_ALLOW_REDIRECT="+allow)
		if out, _ := cmd.CombinedOutput(); !bytes.Contains(out, []byte(want)) {
			t.Errorf("CLAYER_ALLOW_REDIRECT=%s: want %q in\n%s", allow, want, out)
		}
	}
}

// A machine without CA certificates is told what it lacks: by a FETCH, and by a
// store.
func TestNoCertificates(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	const hint = "this machine has no CA certificates: install ca-certificates, or set SSL_CERT_FILE"
	certs := filepath.Join(t.TempDir(), "certs.pem")
	if err := os.WriteFile(certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: otherAuthority(t)}), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file string
		bare bool
	}{{"/dev/null", true}, {certs, false}} {
		w := newWorkspace(t)
		w.write("Containerfile", "FETCH "+srv.URL+"/x /opt\n")
		w.write("Containerfile.copy", "COPY Containerfile /opt/\n")
		for _, args := range [][]string{
			{"solve", "--root=root", "-f", "Containerfile"},
			{"solve", "--root=root", "-f", "Containerfile.copy", "--repo=me/env"},
		} {
			cmd := w.command(args...)
			cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+tt.file, "SSL_CERT_DIR=/nonexistent", "GITHUB_API_URL="+srv.URL, "GITHUB_SERVER_URL="+srv.URL)
			out, _ := cmd.CombinedOutput()
			if strings.Count(string(out), hint) > 0 != tt.bare || !bytes.Contains(out, []byte("certificate signed by unknown authority")) || tt.bare && bytes.Contains(out, []byte("FILE.pem")) {
				t.Errorf("%q with SSL_CERT_FILE=%s:\n%s", args, tt.file, out)
			}
		}
	}
}

// otherAuthority returns a certificate that signed nothing.
func otherAuthority(t *testing.T) []byte {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, cert, cert, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A page on the internet cannot have this machine ask itself; what is played by
// a proxy here is a public host to clayer.
func TestRedirectToThisMachineIsRefused(t *testing.T) {
	var inner atomic.Int32
	secret := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inner.Add(1) }))
	defer secret.Close()
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, secret.URL+"/?token=hunter2", http.StatusFound)
	}))
	defer proxy.Close()
	w := newWorkspace(t)
	w.write("Containerfile", "FETCH http://example.com/x /opt\n")
	cmd := w.command("solve", "--root=root", "-f", "Containerfile")
	cmd.Env = append(cmd.Env, "HTTP_PROXY="+proxy.URL, "http_proxy="+proxy.URL, "NO_PROXY=", "no_proxy=")
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("refused, since it leads from a public host to a loopback or link-local address")) || bytes.Contains(out, []byte("hunter2")) || inner.Load() > 0 {
		t.Errorf("%v, asked %d times\n%s", err, inner.Load(), out)
	}
}

// refusedProxy is an address where nothing listens: tcpmux.
const refusedProxy = "http://127.0.0.1:1"

// waitingServer answers by h and then never ends its answers; waiting is closed at
// the first one. The headers X-Head and X-End flush and end an answer.
func waitingServer(t *testing.T, h http.HandlerFunc) (url string, waiting chan struct{}) {
	waiting = make(chan struct{})
	var once sync.Once
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h(rw, r)
		if f, ok := rw.(http.Flusher); ok && rw.Header().Get("X-Head") != "" {
			f.Flush()
		}
		once.Do(func() { close(waiting) })
		if rw.Header().Get("X-End") == "" {
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		}
	}))
	t.Cleanup(func() { close(stop); srv.CloseClientConnections(); srv.Close() })
	return srv.URL, waiting
}

// A networkWait is a way in which the program waits for the network.
type networkWait struct {
	name  string
	start func(t *testing.T, w *workspace) (args, env []string, waiting chan struct{})
	said  string // on stderr, when it waits; "" where the server knows
}

var networkWaits = []networkWait{
	{name: "head", start: func(t *testing.T, w *workspace) ([]string, []string, chan struct{}) {
		url, waiting := waitingServer(t, func(http.ResponseWriter, *http.Request) {})
		w.write("Containerfile", "FETCH "+url+"/x /opt\n")
		return []string{"plan", "--root=root", "-f", "Containerfile"}, nil, waiting
	}},
	{name: "body", start: func(t *testing.T, w *workspace) ([]string, []string, chan struct{}) {
		url, waiting := waitingServer(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			rw.Header().Set("X-Head", "1")
			rw.Write([]byte("x"))
		})
		w.write("Containerfile", "FETCH "+url+"/x /opt\n")
		return []string{"solve", "--root=root", "-f", "Containerfile"}, nil, waiting
	}},
	{name: "handshake", start: func(t *testing.T, w *workspace) ([]string, []string, chan struct{}) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		waiting := make(chan struct{})
		go func() {
			if c, err := l.Accept(); err == nil {
				close(waiting)
				t.Cleanup(func() { c.Close() })
			}
		}()
		w.write("Containerfile", "FETCH https://"+l.Addr().String()+"/x /opt\n")
		return []string{"plan", "--root=root", "-f", "Containerfile"}, nil, waiting
	}},
	{name: "retry-after", start: func(t *testing.T, w *workspace) ([]string, []string, chan struct{}) {
		url, waiting := waitingServer(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", "100")
			rw.Header().Set("X-End", "1")
			rw.WriteHeader(http.StatusTooManyRequests)
		})
		w.write("Containerfile", "FETCH "+url+"/x /opt\n")
		return []string{"plan", "--root=root", "-f", "Containerfile"}, nil, waiting
	}},
	{name: "the network", said: "waiting for the network: cannot reach example.com (", start: func(t *testing.T, w *workspace) ([]string, []string, chan struct{}) {
		w.write("Containerfile", "FETCH http://example.com/x /opt\n")
		return []string{"solve", "--root=root", "-f", "Containerfile"}, []string{"HTTP_PROXY=" + refusedProxy, "http_proxy=" + refusedProxy, "NO_PROXY=", "no_proxy="}, nil
	}},
	{name: "the network, without a display", said: "waiting for the network: cannot reach registry.example.com (", start: func(t *testing.T, w *workspace) ([]string, []string, chan struct{}) {
		return []string{"cache", "ls", "--store=oci:registry.example.com/me/env"}, []string{"HTTPS_PROXY=" + refusedProxy, "https_proxy=" + refusedProxy, "NO_PROXY=", "no_proxy="}, nil
	}},
	{name: "a rate limit", start: func(t *testing.T, w *workspace) ([]string, []string, chan struct{}) {
		url, waiting := waitingServer(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("X-End", "1")
			rw.Header().Set("Retry-After", "14")
			rw.WriteHeader(http.StatusForbidden)
			io.WriteString(rw, `{"message":"You have exceeded a secondary rate limit"}`)
		})
		return []string{"cache", "ls", "--repo=me/env"}, []string{"GITHUB_API_URL=" + url, "GITHUB_SERVER_URL=" + url}, waiting
	}},
	{name: "an upload", start: func(t *testing.T, w *workspace) ([]string, []string, chan struct{}) {
		waiting := make(chan struct{})
		var once sync.Once
		stop := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch r.Method {
			case http.MethodPost:
				rw.Header().Set("Location", "/v2/me/env/blobs/uploads/1")
				rw.WriteHeader(http.StatusAccepted)
			case http.MethodPut:
				once.Do(func() { close(waiting) })
				select {
				case <-stop:
				case <-r.Context().Done():
				}
			default:
				rw.WriteHeader(http.StatusNotFound)
			}
		}))
		t.Cleanup(func() { close(stop); srv.CloseClientConnections(); srv.Close() })
		w.write("Containerfile", "RUN head -c 3000000 /dev/urandom > /large\n")
		return []string{"solve", "--root=root", "-f", "Containerfile", "--store=oci:" + strings.TrimPrefix(srv.URL, "http://") + "/me/env"}, nil, waiting
	}},
}

// Whatever of the network is waited for, Ctrl-C and SIGTERM end it.
func TestSignalsEndEveryWaitForTheNetwork(t *testing.T) {
	for _, tt := range networkWaits {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(fmt.Sprint(tt.name, "/", sig), func(t *testing.T) {
				t.Parallel()
				signalWhileWaiting(t, tt, sig)
			})
		}
	}
}

func signalWhileWaiting(t *testing.T, tt networkWait, sig syscall.Signal) {
	w := newWorkspace(t)
	args, env, waiting := tt.start(t, w)
	cmd := w.command(append(args, "--progress=plain")...)
	if args[0] == "cache" {
		cmd = w.command(args...)
	}
	cmd.Env = append(cmd.Env, env...)
	var errs lockedBuffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	late := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for begun := false; !begun; {
		select {
		case <-waiting:
			begun = true
		case <-tick.C:
			begun = tt.said != "" && strings.Contains(errs.String(), tt.said)
		case err := <-ended:
			t.Fatalf("it did not wait: %v\n%s", err, errs.String())
		case <-late:
			cmd.Process.Kill()
			t.Fatalf("it does not wait\n%s", errs.String())
		}
	}
	start := time.Now()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		cmd.Process.Kill()
		<-ended
	}
	took := time.Since(start)
	t.Logf("ended after %v", took)
	// 2 s, and what a busy machine adds: each wait is longer than that.
	code := cmd.ProcessState.ExitCode()
	if tt.name == "an upload" && code == exitDone {
		code = exitInterrupted // the root was done before
	}
	if code != exitInterrupted || took > 4500*time.Millisecond {
		t.Errorf("exit code %d after %v\n%s", code, took, errs.String())
	}
}

// lockedBuffer is a buffer that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
