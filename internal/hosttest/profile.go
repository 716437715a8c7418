package hosttest

import (
	"net/http"
	"path"
	"strings"
)

// A Profile is a kind of machine: what the network around it lets through, and what its
// sessions find in their environment.
type Profile struct {
	Name  string
	Title string // as docs/stores.md calls it

	// Rules say what becomes of a request. The first that fits decides; what none fits is
	// refused.
	Rules []Rule

	// Certificates are the variables that name the certificates of the proxy, which opens TLS.
	Certificates []string

	// GitProxy says that the session's own repository is reached by a proxy for Git, whose
	// address its remote has.
	GitProxy bool

	// Environ is what sessions have in their environment beside the proxy and certificates.
	Environ []string
}

// A Rule is for requests to hosts. An empty field fits all.
type Rule struct {
	Hosts   string // patterns as of path.Match, with spaces between them
	Paths   string // the same for paths, of which "*" fits a part between slashes
	Service string // the service of Git that is asked for
	Then    Verdict
}

// A Verdict is what a proxy does with a request.
type Verdict uint8

const (
	Refuse   Verdict = iota // it connects nobody: 403 for the CONNECT, or for the request without TLS
	Deny                    // it answers 403 in the place of the server
	Pass                    // the server answers
	Attached                // the server answers for the repositories of the session, and else it denies
)

const (
	upload  = "git-upload-pack"  // clone and fetch
	receive = "git-receive-pack" // push
)

// everything passes: a network without rules.
var everything = []Rule{{Then: Pass}}

// throughGitHubProxy are the rules of Claude Code for GitHub, at every network level: its API,
// archives and releases are for the repositories of the session; Git reads any.
var throughGitHubProxy = []Rule{
	{Hosts: "github.com", Service: upload, Then: Pass},
	{Hosts: "github.com", Service: receive, Then: Deny},
	{Hosts: "github.com api.github.com", Then: Attached},
	// An address there is signed for a download that passed.
	{Hosts: "codeload.github.com release-assets.githubusercontent.com objects.githubusercontent.com", Paths: "/signed/*", Then: Pass},
	{Hosts: "codeload.github.com release-assets.githubusercontent.com objects.githubusercontent.com", Then: Deny},
}

var claude = []string{"CLAUDE_CODE_REMOTE=true", "IS_SANDBOX=yes", "GH_TOKEN=" + placeholder, "GITHUB_TOKEN=" + placeholder}

// Profiles are the hosts whose rules are published, or were reported.
var Profiles = []Profile{
	{
		Name:  "claude-trusted",
		Title: "Claude Code on the web, its default network",
		Rules: append(throughGitHubProxy[:len(throughGitHubProxy):len(throughGitHubProxy)],
			Rule{Hosts: "raw.githubusercontent.com", Then: Pass},
			// A registry is of use only if the host of its blobs passes, too. That of ghcr.io and of
			// public.ecr.aws does not.
			Rule{Hosts: "registry-1.docker.io auth.docker.io production.cloudflare.docker.com gcr.io *.gcr.io ghcr.io public.ecr.aws", Then: Pass},
			Rule{Hosts: "*.amazonaws.com *.r2.cloudflarestorage.com storage.googleapis.com", Then: Pass},
			Rule{Hosts: "pypi.org files.pythonhosted.org registry.npmjs.org index.crates.io static.crates.io proxy.golang.org archive.ubuntu.com security.ubuntu.com", Then: Pass},
		),
		Certificates: []string{"SSL_CERT_FILE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"},
		GitProxy:     true,
		Environ:      claude,
	},
	{
		Name:         "claude-full",
		Title:        "Claude Code with full network access",
		Rules:        append(throughGitHubProxy[:len(throughGitHubProxy):len(throughGitHubProxy)], everything...),
		Certificates: []string{"SSL_CERT_FILE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"},
		GitProxy:     true,
		Environ:      claude,
	},
	{
		Name:         "codex-setup",
		Title:        "Codex cloud, setup",
		Rules:        everything,
		Certificates: []string{"CODEX_PROXY_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"},
	},
	{
		Name:         "codex-agent",
		Title:        "Codex cloud, agent",
		Rules:        nil, // the proxy is there, and refuses all
		Certificates: []string{"CODEX_PROXY_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"},
	},
	{
		Name:         "actions",
		Title:        "GitHub Actions",
		Rules:        everything,
		Certificates: []string{"SSL_CERT_FILE"},
		Environ: []string{
			"CI=true", "GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=me/env", "GITHUB_TOKEN=" + Token,
			"GITHUB_API_URL=https://api.github.com", "GITHUB_SERVER_URL=https://github.com",
			"ACTIONS_RESULTS_URL=https://" + results + "/", "ACTIONS_RUNTIME_TOKEN=" + jobToken,
		},
	},
	{
		Name:         "open",
		Title:        "Cursor, Jules, Devin, OpenHands, Daytona, E2B",
		Rules:        []Rule{{Hosts: results + " " + resultsStorage, Then: Deny}, {Then: Pass}}, // jobs alone have its token
		Certificates: []string{"SSL_CERT_FILE"},
	},
}

// verdict is what becomes of a request; of a CONNECT if it has no path.
func (p *Profile) verdict(host string, r *http.Request) Verdict {
	for _, rule := range p.Rules {
		if !rule.hosts(host) {
			continue
		}
		if r == nil {
			if rule.Then != Refuse {
				return Pass // what is asked there, decides
			}
			return Refuse
		}
		if rule.fits(r) {
			return rule.Then
		}
	}
	return Refuse
}

func (r *Rule) hosts(host string) bool {
	for pattern := range strings.FieldsSeq(r.Hosts) {
		if ok, _ := path.Match(pattern, host); ok { // a star fits dots, too
			return true
		}
	}
	return r.Hosts == ""
}

func (r *Rule) fits(req *http.Request) bool {
	if r.Service != "" && serviceOf(req) != r.Service {
		return false
	}
	ok, _ := path.Match(r.Paths, req.URL.Path)
	return ok || r.Paths == ""
}

// serviceOf returns the service of Git that a request is for; "" for none.
func serviceOf(r *http.Request) string {
	if strings.HasSuffix(r.URL.Path, "/info/refs") {
		return r.URL.Query().Get("service")
	}
	if last := path.Base(r.URL.Path); last == upload || last == receive {
		return last
	}
	return ""
}
