//go:build linux

package main

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// A FETCH goes through HTTPS_PROXY, and trusts the CA of SSL_CERT_FILE: a proxy
// that inspects TLS has one of its own. A page in place of the file, with which
// such a proxy refuses, never becomes a file.
func TestFetchThroughAProxyWithItsOwnCA(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	origin := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/file.txt":
			io.WriteString(rw, "content")
		default:
			rw.WriteHeader(http.StatusForbidden)
			io.WriteString(rw, "<html>refused by policy</html>")
		}
	}))
	defer origin.Close()
	var connects atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "example.com:443" {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		connects.Add(1)
		up, err := net.Dial("tcp", origin.Listener.Addr().String())
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		down, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			up.Close()
			return
		}
		io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(up, down); up.Close() }()
		go func() { io.Copy(down, up); down.Close() }()
	}))
	defer proxy.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: origin.Certificate().Raw})
	w.write("ca.pem", string(ca))
	run := func(text string, env ...string) (string, error) {
		w.write("Containerfile", text)
		cmd := w.command("solve", "--dest=out", "-f", "Containerfile")
		cmd.Env = append(cmd.Env, append(env, "HTTPS_PROXY="+proxy.URL, "NO_PROXY=")...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const fetch = "FETCH https://example.com/file.txt /opt/x\n"
	if out, err := run(fetch); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("without the CA: %v\n%s", err, out)
	}
	if out, err := run(fetch, "SSL_CERT_FILE="+w.path("ca.pem")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if got, err := os.ReadFile(w.path("out/opt/x/file.txt")); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	if connects.Load() == 0 {
		t.Error("the proxy was not asked")
	}
	if out, err := run("FETCH https://example.com/other.txt /opt/x\n", "SSL_CERT_FILE="+w.path("ca.pem")); err == nil || !strings.Contains(out, "403 Forbidden") {
		t.Errorf("a page of the proxy's: %v\n%s", err, out)
	}
	if out, err := run("FETCH https://blocked.example.org/x /opt/x\n"); err == nil || !strings.Contains(out, "the proxy refuses blocked.example.org:443: 403") {
		t.Errorf("a host that it refuses: %v\n%s", err, out)
	}
	if _, err := os.Stat(w.path("out/opt/x/other.txt")); err == nil {
		t.Error("the page became a file")
	}
}
