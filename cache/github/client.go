// Package github speaks with GitHub: refs, trees, releases. It is the one holder
// of the token, which goes to the API's host, its upload host and, for a ref
// advertisement, to the server; never along a redirect to another.
//
// The API's answers are read by go-github's requests and structs of our own:
// its version 62 knows neither the digest of an asset nor immutable releases,
// its downloads run one after the other, and its uploads can't be sent again.
// Bytes go through cache/transfer.
package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	gh "github.com/google/go-github/v62/github"
	"golang.org/x/time/rate"

	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/credential"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// Options say which GitHub, and as whom. The zero Options is github.com without
// a token.
type Options struct {
	APIURL    string // "" means https://api.github.com
	ServerURL string // "" means https://github.com
	Token     string // "" for none

	// Answers is a directory where answers are stored by ETag: one that has not
	// changed is not counted against the limit. "" stores none.
	Answers  string
	ReadOnly bool // Answers are used, but none is written

	Transfer transfer.Options // how bytes are moved

	// Patience is how long all writes together may wait because GitHub asks
	// for it; 0 means 5 minutes. A read waits 15 s at most: there is a build
	// to fall back on.
	Patience time.Duration

	// Pace is the least time between requests that create something, once
	// more than ten have been sent; 0 means a second. Less than 0 means none.
	Pace time.Duration
}

// A Client speaks with one GitHub. It is safe for concurrent use.
type Client struct {
	api      *gh.Client // makes requests; sends none
	server   *url.URL
	token    string
	transfer *transfer.Client
	answers  answers

	creating chan struct{} // holds one while a request that changes something is under way
	pace     *rate.Limiter

	mu      sync.Mutex
	moved   map[string]string // of renamed repositories: "repos/o/r" → "repositories/1"
	infos   map[Repo]Info
	uploads map[string]bool // hosts that the API named for uploads
	noTree  map[source]error
	limit   limit
	ahead   time.Duration // of GitHub's clock before ours
}

// New returns a client. The error says which of the URLs is none.
func New(opt Options) (*Client, error) {
	base, err := parseBase(cmp.Or(opt.APIURL, "https://api.github.com"), "GITHUB_API_URL")
	if err != nil {
		return nil, err
	}
	server, err := parseBase(cmp.Or(opt.ServerURL, "https://github.com"), "GITHUB_SERVER_URL")
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(opt.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("the GitHub token holds a character that no token has")
	}
	c := &Client{
		api:      gh.NewClient(nil),
		server:   server,
		token:    opt.Token,
		infos:    make(map[Repo]Info),
		moved:    make(map[string]string),
		uploads:  make(map[string]bool),
		noTree:   make(map[source]error),
		creating: make(chan struct{}, 1),
		limit:    limit{budget: cmp.Or(opt.Patience, 5*time.Minute)},
	}
	c.api.BaseURL = base
	c.api.UserAgent = cmp.Or(opt.Transfer.UserAgent, "clayer")
	c.answers = answers{dir: opt.Answers, readOnly: opt.ReadOnly, token: fingerprint(opt.Token)}
	pace := rate.Every(cmp.Or(opt.Pace, time.Second))
	if opt.Pace < 0 {
		pace = rate.Inf
	}
	c.pace = rate.NewLimiter(pace, 10)
	topt := opt.Transfer
	topt.Wrap = func(rt http.RoundTripper) http.RoundTripper { return &bearer{c, rt} }
	c.transfer = transfer.New(topt)
	return c, nil
}

func parseBase(raw, name string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%s=%s: want a URL such as https://github.example.com", name, transfer.Redact(raw))
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/" // NewRequest requires it
	}
	return u, nil
}

// HasToken reports whether there is a token.
func (c *Client) HasToken() bool { return c.token != "" }

// Proxied reports whether the token is a placeholder: a proxy puts the real one into requests
// about the repositories of the session, and refuses those about others.
func (c *Client) Proxied() bool { return c.token == credential.Placeholder }

// Transfer returns the client that moves bytes: with the token where a request
// of this package asks for it, and nowhere else.
func (c *Client) Transfer() *transfer.Client { return c.transfer }

// Now returns the time by GitHub's clock, as of its last answer.
func (c *Client) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// A Repo names a repository.
type Repo struct{ Owner, Name string }

func (r Repo) String() string { return r.Owner + "/" + r.Name }

func (r Repo) path() string { return "repos/" + r.Owner + "/" + r.Name }

var repoName = lazyregexp.New(`^([A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}))/([A-Za-z0-9._-]{1,100})$`)

// ParseRepo reads "owner/repo".
func ParseRepo(s string) (Repo, error) {
	m := repoName().FindStringSubmatch(s)
	if m == nil || m[2] == "." || m[2] == ".." || strings.HasSuffix(m[2], ".git") {
		return Repo{}, fmt.Errorf("%q: want owner/repo", s)
	}
	return Repo{m[1], m[2]}, nil
}

// web returns an address on the server.
func (c *Client) web(r Repo, suffix string) string {
	return c.server.String() + r.String() + suffix
}

// bearer adds the token to the requests that may have it.
type bearer struct {
	c  *Client
	rt http.RoundTripper
}

type tokenKey struct{}

// withToken marks the requests of ctx as those that carry the token. A redirect
// has the same context: its host decides.
func withToken(ctx context.Context) context.Context {
	return context.WithValue(ctx, tokenKey{}, true)
}

// RoundTrip sets the header on a copy: what net/http copies along a redirect
// never has it. It would go by the host's name alone, whatever the port.
func (b *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if b.c.token != "" && req.Context().Value(tokenKey{}) != nil {
		req = req.Clone(req.Context())
		switch {
		case b.c.trusts(req.URL):
			req.Header.Set("Authorization", "Bearer "+b.c.token)
		case sameOrigin(req.URL, b.c.server) && strings.HasSuffix(req.URL.Path, ".git/info/refs"):
			req.SetBasicAuth("x-access-token", b.c.token)
		}
	}
	return b.rt.RoundTrip(req)
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
}

// trusts reports whether a URL is of the API or of an upload host that it named.
func (c *Client) trusts(u *url.URL) bool {
	if sameOrigin(u, c.api.BaseURL) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return u.Scheme == c.api.BaseURL.Scheme && c.uploads[strings.ToLower(u.Host)]
}

// trustUploads notes the host of a release's upload_url. It must belong to the
// API's or the server's: uploads.github.com to github.com.
func (c *Client) trustUploads(u *url.URL) error {
	for _, own := range []*url.URL{c.api.BaseURL, c.server} {
		name := strings.ToLower(u.Hostname())
		if u.Scheme == own.Scheme && (name == strings.ToLower(own.Hostname()) || strings.HasSuffix(name, "."+strings.ToLower(own.Hostname()))) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.uploads[strings.ToLower(u.Host)] = true
			return nil
		}
	}
	return fmt.Errorf("the API names %s as its upload host, which is none of %s's: the token does not go there", u.Host, c.server.Host)
}
