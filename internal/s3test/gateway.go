// Package s3test runs services with buckets for tests: versitygw on loopback, and one in
// this process whose faults a test chooses.
package s3test

import (
	"context"
	"errors"
	"fmt"
	"go/build"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// The credentials of the gateway.
const (
	KeyID  = "KEYOFTHEGATEWAY"
	Secret = "secret-of-the-gateway"
)

// Command returns the path of versitygw, as .ci/run installs it. The error says that there
// is none.
func Command() (string, error) {
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path, nil
	}
	path := filepath.Join(build.Default.GOPATH, "clayer-tools", "versitygw")
	if _, err := os.Stat(path); err != nil {
		return "", errors.New("github.com/versity/versitygw is not installed; .ci/run does that")
	}
	return path, nil
}

// A Gateway is a process, whose buckets are the directories of Dir.
type Gateway struct {
	URL string
	Dir string

	front   *httptest.Server
	process *os.Process
	done    chan struct{}
}

var sockets atomic.Int64

// Start starts a gateway on what dir holds. The caller closes it.
func Start(dir string) (*Gateway, error) {
	command, err := Command()
	if err != nil {
		return nil, err
	}
	g := &Gateway{Dir: filepath.Join(dir, "buckets"), done: make(chan struct{})}
	if err := errors.Join(os.MkdirAll(g.Dir, 0o755), os.MkdirAll(filepath.Join(dir, "meta"), 0o755)); err != nil {
		return nil, err
	}
	// It does not say which port it has, so it gets a socket that no other process asks for.
	socket := fmt.Sprintf("@clayer-s3test-%d-%d", os.Getpid(), sockets.Add(1))
	cmd := exec.Command(command, "--port", socket, "posix", "--sidecar", filepath.Join(dir, "meta"), g.Dir)
	cmd.Env = []string{"ROOT_ACCESS_KEY=" + KeyID, "ROOT_SECRET_KEY=" + Secret, "VGW_QUIET=true"}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	g.process = cmd.Process
	go func() {
		defer close(g.done)
		_ = cmd.Wait() // it is killed in the end
	}()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	g.front = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "gateway"})
			r.Out.Host = r.In.Host // it is signed
		},
		Transport: &http.Transport{DialContext: dial, DisableCompression: true},
	})
	g.URL = g.front.URL
	for deadline := time.Now().Add(30 * time.Second); ; {
		if conn, err := dial(context.Background(), "", ""); err == nil {
			conn.Close()
			return g, nil
		}
		select {
		case <-g.done:
			g.Close()
			return nil, errors.New("the gateway ended at once")
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			g.Close()
			return nil, errors.New("the gateway does not listen")
		}
	}
}

// New starts a gateway that ends with the test. The test is skipped where there is none.
func New(t testing.TB) *Gateway {
	t.Helper()
	if _, err := Command(); err != nil {
		t.Skip(err)
	}
	g, err := Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// Bucket makes a bucket.
func (g *Gateway) Bucket(name string) error { return os.Mkdir(filepath.Join(g.Dir, name), 0o755) }

// Handler is what the gateway answers.
func (g *Gateway) Handler() http.Handler { return g.front.Config.Handler }

// Close ends the gateway, as a power cut does.
func (g *Gateway) Close() {
	_ = g.process.Kill()
	<-g.done
	g.front.CloseClientConnections()
	g.front.Close()
}
