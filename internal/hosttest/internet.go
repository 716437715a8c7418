// Package hosttest emulates the machines that clayer runs on: servers on loopback under the
// names of the internet's, behind a forward proxy with the published rules of each host. The
// proxy opens TLS with certificates of its own, which tests give to clayer as the host does.
package hosttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/internal/ghatest"
	"github.com/clayer/clayer/internal/githubtest"
	"github.com/clayer/clayer/internal/gittest"
	"github.com/clayer/clayer/internal/ocitest"
	"github.com/clayer/clayer/internal/s3test"
)

// What logs in: to GitHub, to registries, to buckets, and a job to its cache.
const (
	Token    = "ghp_test0123456789"
	jobToken = ghatest.Token

	// placeholder is what sessions of Claude Code have in the place of a token.
	placeholder = "proxy-injected"
)

// The repositories on GitHub. That of the project is attached to sessions.
const (
	Env     = "me/env"
	Project = "me/project"
	Tools   = "other/tools"
)

const (
	results        = "results-receiver.actions.githubusercontent.com"
	resultsStorage = "productionresultssa0.blob.core.windows.net"
)

// An Internet is the servers.
type Internet struct {
	GitHub *githubtest.Server
	Git    *gittest.Server // the repositories of github.com, for Git
	S3     *s3test.Fake    // the buckets of Amazon, Cloudflare and Google
	Jobs   *ghatest.Server // the cache of GitHub Actions

	Site   string // the directory that raw.githubusercontent.com/me/site/main serves
	Public string // the directory that the bucket "public" of Amazon serves

	Commit string // of Tools

	registry http.Handler
	fronts   map[string]*front
}

// A front is how a registry looks from the internet: requests carry a token, blobs are at a
// host of their own.
type front struct {
	realm, blobs string // "" for the registry's own host
}

// New starts servers that end with the test, which is skipped where git or the registry is
// not installed.
func New(t testing.TB) *Internet {
	t.Helper()
	n := &Internet{
		GitHub: githubtest.New(t), Git: gittest.New(t, gittest.Options{Filter: true}), S3: s3test.Handler(), Jobs: ghatest.Handler(),
		Site: t.TempDir(), Public: t.TempDir(),
		fronts: map[string]*front{
			"ghcr.io":              {blobs: "pkg-containers.githubusercontent.com"},
			"registry-1.docker.io": {realm: "auth.docker.io", blobs: "production.cloudflare.docker.com"},
			"gcr.io":               {},
			"public.ecr.aws":       {blobs: "d2glxqk2uabbnd.cloudfront.net"},
		},
	}
	n.S3.Public = true
	n.GitHub.URL, n.GitHub.CDN = "https://api.github.com", "https://release-assets.githubusercontent.com"
	n.GitHub.Uploads, n.GitHub.Archives = "https://uploads.github.com", "https://codeload.github.com"
	n.GitHub.Token(Token, "write")
	n.Jobs.Storage = "https://" + resultsStorage
	r := ocitest.New(t, ocitest.Options{})
	n.registry = &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: r.Host})
		p.Out.Host = p.In.Host
		p.Out.Header.Set("X-Forwarded-Proto", "https")
		p.Out.Header.Del("Authorization")
	}}
	for _, name := range []string{Env, Project} {
		n.GitHub.Repo(name, githubtest.Repo{})
		if _, err := n.Git.Repository(name + ".git"); err != nil {
			t.Fatal(err)
		}
	}
	n.tools(t)
	return n
}

// tools makes the repository Tools, with one commit, the same at GitHub's API as for Git.
func (n *Internet) tools(t testing.TB) {
	t.Helper()
	files := map[string]string{"bin/tool": "#!/bin/sh\necho a tool\n", "lib/a.txt": "a\n"}
	if _, err := n.Git.Repository(Tools + ".git"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "trunk"},
		{"add", "-A"},
		{"-c", "user.name=a", "-c", "user.email=a@a", "commit", "-q", "-m", "tools"},
		{"push", "-q", filepath.Join(n.Git.Dir, Tools+".git"), "trunk"},
		{"--git-dir=" + filepath.Join(n.Git.Dir, Tools+".git"), "symbolic-ref", "HEAD", "refs/heads/trunk"},
	} {
		if err := gittest.Git(append([]string{"-C", dir}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("git", "-C", dir, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	n.Commit = strings.TrimSpace(string(out))
	n.GitHub.Repo(Tools, githubtest.Repo{Empty: true})
	n.GitHub.CommitAs(Tools, "refs/heads/trunk", n.Commit, files)
}

// server returns what answers at a host.
func (n *Internet) server(host string) func(w http.ResponseWriter, r *http.Request) {
	for name, f := range n.fronts {
		switch host {
		case name:
			return func(w http.ResponseWriter, r *http.Request) { n.serveRegistry(w, r, host, f) }
		case f.realm:
			return n.serveToken
		case f.blobs:
			return n.registry.ServeHTTP
		}
	}
	switch {
	case host == "github.com":
		return n.serveGitHub
	case host == "uploads.github.com":
		return func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = "/uploads" + r.URL.Path
			n.GitHub.Handler().ServeHTTP(w, r)
		}
	case host == "api.github.com", host == "codeload.github.com", host == "release-assets.githubusercontent.com":
		return n.GitHub.Handler().ServeHTTP
	case host == "raw.githubusercontent.com":
		return http.StripPrefix("/me/site/main", http.FileServer(http.Dir(n.Site))).ServeHTTP
	case host == "public.s3.us-east-1.amazonaws.com", host == "public.s3.amazonaws.com":
		return http.FileServer(http.Dir(n.Public)).ServeHTTP
	case strings.HasSuffix(host, ".amazonaws.com") && strings.Contains(host, ".s3."):
		bucket, _, _ := strings.Cut(host, ".s3.")
		return n.bucket(bucket)
	case strings.HasSuffix(host, ".storage.googleapis.com"):
		return n.bucket(strings.TrimSuffix(host, ".storage.googleapis.com"))
	case host == "storage.googleapis.com", strings.HasSuffix(host, ".r2.cloudflarestorage.com"):
		return n.S3.ServeHTTP
	case host == results, host == resultsStorage:
		return n.Jobs.ServeHTTP
	case host == "files.pythonhosted.org", host == "registry.npmjs.org", host == "archive.ubuntu.com":
		return func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Unix(1, 0), strings.NewReader("a package of "+host+"\n"))
		}
	}
	return nil
}

// has reports whether there is a host of that name.
func (n *Internet) has(host string) bool { return n.server(host) != nil }

// ServeHTTP answers a request to a host.
func (n *Internet) ServeHTTP(w http.ResponseWriter, r *http.Request, host string) {
	r.Host = host
	n.server(host)(w, r)
}

// bucket answers for a service whose hosts name the bucket.
func (n *Internet) bucket(name string) func(w http.ResponseWriter, r *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/" + name + r.URL.Path
		n.S3.ServeHTTP(w, r)
	}
}

func (n *Internet) serveGitHub(w http.ResponseWriter, r *http.Request) {
	switch serviceOf(r) {
	case upload:
		n.serveGit(w, r)
	case receive: // nobody has a login
		w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
		http.Error(w, "a login, please", http.StatusUnauthorized)
	default:
		n.GitHub.Handler().ServeHTTP(w, r)
	}
}

// serveGit answers a request of Git: with the ".git" that GitHub's addresses need not have.
func (n *Internet) serveGit(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	if len(parts) == 3 {
		r.URL.Path = "/" + parts[0] + "/" + strings.TrimSuffix(parts[1], ".git") + ".git/" + parts[2]
	}
	n.Git.ServeHTTP(w, r)
}

// attached reports whether a request is for a repository of the session.
func (n *Internet) attached(host string, r *http.Request) bool {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if host == "api.github.com" {
		path = strings.TrimPrefix(path, "repos/")
	}
	return path == Project || strings.HasPrefix(path, Project+"/") || strings.HasPrefix(path, Project+".git/")
}

// serveRegistry answers as registries do on the internet.
func (n *Internet) serveRegistry(w http.ResponseWriter, r *http.Request, host string, f *front) {
	realm := host
	if f.realm != "" {
		realm = f.realm
	}
	if r.URL.Path == "/token" {
		n.serveToken(w, r)
		return
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	repository := name + "/env"
	write := r.Method != http.MethodGet && r.Method != http.MethodHead || strings.Contains(r.URL.Path, "/uploads/")
	may := r.Header.Get("Authorization")
	if may != "Bearer "+pullToken && may != "Bearer "+pushToken || write && may != "Bearer "+pushToken {
		actions := "pull"
		if write {
			actions = "pull,push"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="%s",scope="repository:%s:%s"`, realm, host, repository, actions))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return
	}
	if f.blobs != "" && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
		http.Redirect(w, r, "https://"+f.blobs+r.URL.Path+"?sig=signature-of-the-address", http.StatusTemporaryRedirect)
		return
	}
	n.registry.ServeHTTP(w, r)
}

const (
	pullToken = "pull-token-of-the-registry"
	pushToken = "push-token-of-the-registry"
)

// serveToken gives anybody a token to pull, and who logs in one to push.
func (n *Internet) serveToken(w http.ResponseWriter, r *http.Request) {
	token := pullToken
	user, password, _ := r.BasicAuth()
	if user != "" {
		if user != ocitest.User || password != ocitest.Password {
			http.Error(w, `{"errors":[{"code":"DENIED"}]}`, http.StatusForbidden)
			return
		}
		token = pushToken
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}

// gitProxy is the proxy for Git of a session: it reads and pushes branches of its own
// repository, and no more.
func (n *Internet) gitProxy(w http.ResponseWriter, r *http.Request) {
	user, _, _ := r.BasicAuth()
	rest, ok := strings.CutPrefix(r.URL.Path, "/git/")
	if !ok || user != "" && user != "local_proxy" || !strings.HasPrefix(rest, Project+"/") && !strings.HasPrefix(rest, Project+".git/") {
		http.Error(w, "not a repository of this session", http.StatusForbidden)
		return
	}
	if r.Method == http.MethodPost && serviceOf(r) == receive && !onlyBranches(r) {
		http.Error(w, "this session may push branches, and delete none", http.StatusForbidden)
		return
	}
	r.URL.Path = "/" + rest
	n.serveGit(w, r)
}

// onlyBranches reports whether a push changes branches, and deletes none. It reads the
// commands of the push, and leaves the body as it was.
func onlyBranches(r *http.Request) bool {
	var seen bytes.Buffer
	body := r.Body
	defer func() { r.Body = io.NopCloser(io.MultiReader(&seen, body)) }()
	commands := io.TeeReader(body, &seen)
	for {
		var length [4]byte
		if _, err := io.ReadFull(commands, length[:]); err != nil {
			return false
		}
		size, err := strconv.ParseUint(string(length[:]), 16, 16)
		if err != nil || size == 0 {
			return err == nil // a flush ends the commands
		}
		line := make([]byte, max(size, 4)-4)
		if _, err := io.ReadFull(commands, line); err != nil {
			return false
		}
		line, _, _ = bytes.Cut(line, []byte{0})
		if words := strings.Fields(string(line)); len(words) == 3 && (strings.Trim(words[1], "0") == "" || !strings.HasPrefix(words[2], "refs/heads/")) {
			return false
		}
	}
}

// SumOf returns the SHA-256 of the package that a registry of packages has.
func SumOf(host string) string {
	sum := sha256.Sum256([]byte("a package of " + host + "\n"))
	return "sha256:" + hex.EncodeToString(sum[:])
}
