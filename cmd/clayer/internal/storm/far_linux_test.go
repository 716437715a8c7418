package storm

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"testing"

	"github.com/clayer/clayer/internal/githubtest"
)

// A far store is asked after the local one. The zero value is none.
type far struct {
	flags, environ []string
	next           func(answers []string) // what its server answers
}

// registryHost names the variable with the address of the registry that all
// rounds share, each with a repository of its own.
const registryHost = "STORM_REGISTRY"

func newFar(t *testing.T, g *ground, r *Round) (far, error) {
	ignore := func([]string) {}
	store, host := r.Store, os.Getenv(registryHost)
	if store == "oci" && host == "" {
		store = "dir" // no registry is installed
	}
	switch store {
	case "dir":
		dir := g.path("far")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return far{}, err
		}
		return far{flags: []string{"--store", "dir:" + dir}, next: ignore}, os.Chown(dir, g.owner(), g.owner())
	case "oci":
		proxy := &faulty{real: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})}
		srv := httptest.NewServer(proxy)
		return far{flags: []string{"--store", fmt.Sprintf("oci:%s/storm/%d", srv.Listener.Addr(), r.Seed)}, next: proxy.next}, nil
	case "github":
		gh := githubtest.New(t)
		gh.Repo("me/env", githubtest.Repo{})
		gh.Token("ghp_test0123456789", "write")
		return far{
			flags:   []string{"--repo", "me/env"},
			environ: []string{"GITHUB_API_URL=" + gh.URL, "GITHUB_SERVER_URL=" + gh.URL, "GH_TOKEN=ghp_test0123456789"},
			next: func(answers []string) {
				gh.Heal()
				for _, a := range answers {
					gh.Fail(githubFault(a))
				}
			},
		}, nil
	}
	return far{next: ignore}, nil
}

// githubFault is what a server does at its next request.
func githubFault(answer string) githubtest.Fault {
	f := githubtest.Fault{Match: "/"}
	switch answer {
	case "403", "404", "429", "500", "503":
		fmt.Sscan(answer, &f.Status)
	case "html", "redirect":
		f.Status, f.Body = http.StatusOK, "<html>log in first</html>"
	case "empty":
		f.Status = http.StatusOK
	case "reset":
		f.Done = true
	default:
		f.CutAt = 200
	}
	return f
}

// A faulty server answers as it is told, one request after the other, and then
// as the real one.
type faulty struct {
	real    http.Handler
	mu      sync.Mutex
	answers []string
}

// next sets what is answered, in order.
func (f *faulty) next(answers []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers = answers
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	answer := ""
	if len(f.answers) > 0 {
		answer, f.answers = f.answers[0], f.answers[1:]
	}
	f.mu.Unlock()
	if !misbehave(w, r, answer, f.real.ServeHTTP) {
		f.real.ServeHTTP(w, r)
	}
}
