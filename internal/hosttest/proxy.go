package hosttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Host is the network of one machine: a forward proxy that does what the rules of a
// profile say, and, where the profile has one, a proxy for Git.
type Host struct {
	Profile *Profile
	GitURL  string // of the proxy for Git; "" where the profile has none

	internet  *Internet
	ca        *authority
	proxy     *httptest.Server
	intercept *opened

	mu     sync.Mutex
	asked  []string
	before func(w http.ResponseWriter, r *http.Request) bool
}

// Host starts the network of a machine, which ends with the test.
func (n *Internet) Host(t testing.TB, p *Profile, link Link) *Host {
	h := &Host{Profile: p, internet: n, ca: newAuthority(t), intercept: &opened{conns: make(chan net.Conn), done: make(chan struct{})}}
	pace := newPace(link)
	inside := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.answer(w, r, "https") }), ErrorLog: log.New(io.Discard, "", 0)} // of clients that are killed
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = inside.Serve(h.intercept)
	}()
	h.proxy = start(pace, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			h.connect(w, r)
			return
		}
		h.answer(w, r, "http")
	}))
	stop := []func(){h.proxy.CloseClientConnections, h.proxy.Close, func() { inside.Close() }, func() { <-ended }}
	if p.GitProxy {
		git := start(pace, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.note(r.Method + " git-proxy" + r.URL.RequestURI())
			n.gitProxy(w, r)
		}))
		h.GitURL = strings.Replace(git.URL, "://", "://local_proxy@", 1) + "/git/"
		stop = append(stop, git.CloseClientConnections, git.Close)
	}
	t.Cleanup(func() {
		for _, f := range stop {
			f()
		}
	})
	return h
}

func start(pace *pace, handler http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(handler)
	srv.Listener = &pacedListener{srv.Listener, pace}
	srv.Start()
	return srv
}

// Environ returns the environment of the machine's sessions: by which proxy they go, what
// they trust, and what the host sets.
func (h *Host) Environ() []string {
	env := slices.Clone(h.Profile.Environ)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		env = append(env, name+"="+h.proxy.URL)
	}
	for _, name := range h.Profile.Certificates {
		env = append(env, name+"="+h.ca.file)
	}
	return append(env, "NO_PROXY=localhost,127.0.0.1", "no_proxy=localhost,127.0.0.1")
}

// Asked returns the requests since it was called last: "METHOD host/path", and what the
// proxy answered in the place of the server.
func (h *Host) Asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := h.asked
	h.asked = nil
	return asked
}

// Before has f see each request that the rules let through, with the host in its Host. f
// returns whether it has answered it. nil is for none.
func (h *Host) Before(f func(w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = f
}

func (h *Host) note(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, line)
}

// connect opens the TLS of a connection, as a proxy does that looks at what passes.
func (h *Host) connect(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if h.Profile.verdict(host, nil) == Refuse || !h.internet.has(host) {
		h.note("CONNECT " + host + " 403")
		w.Header().Set("X-Deny-Reason", "host_not_allowed")
		http.Error(w, "Host not in allowlist", http.StatusForbidden)
		return
	}
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil || buffered.Reader.Buffered() > 0 {
		conn.Close()
		return
	}
	select {
	case h.intercept.conns <- tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{h.ca.certificate(host)}}):
	case <-h.intercept.done:
		conn.Close()
	}
}

// answer answers a request, after TLS or without it.
func (h *Host) answer(w http.ResponseWriter, r *http.Request, scheme string) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	line := r.Method + " " + host + r.URL.Path
	verdict := h.Profile.verdict(host, r)
	if verdict == Attached {
		verdict = Deny
		if h.internet.attached(host, r) {
			verdict = Pass
		}
	}
	if verdict != Pass || scheme == "http" && !h.internet.has(host) {
		h.note(line + " 403")
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
		http.Error(w, "Access to this repository or host is not enabled for this session", http.StatusForbidden)
		return
	}
	h.note(line)
	h.mu.Lock()
	before := h.before
	h.mu.Unlock()
	r.Host = host
	if before != nil && before(w, r) {
		return
	}
	if r.Header.Get("Authorization") == "Bearer "+placeholder {
		r.Header.Set("Authorization", "Bearer "+Token) // what the proxy knows, and the session does not
	}
	r.URL.Scheme, r.URL.Host = "", ""
	h.internet.ServeHTTP(w, r, host)
}

// An opened listener has the connections whose TLS the proxy opened.
type opened struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *opened) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *opened) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *opened) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// An authority issues certificates for hosts.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu     sync.Mutex
	issued map[string]tls.Certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "proxy-ca.pem"), issued: make(map[string]tls.Certificate)}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the proxy of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) certificate(host string) tls.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.issued[host]; ok {
		return c
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(a.issued)) + 2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, a.key.Public(), a.key)
	if err != nil {
		panic(fmt.Sprintf("hosttest: a certificate for %s: %v", host, err))
	}
	c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
	a.issued[host] = c
	return c
}
