package github

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// An Access is what GitHub says of the one who asks.
type Access struct {
	Scopes    []string // of a classic token; a fine-grained one lists none
	Limit     int      // API requests an hour; 0: not known
	Remaining int
	Reset     time.Time
	Ahead     time.Duration // of GitHub's clock before ours, to the second
}

// Access asks the API once, with the token, what it may. An *Error of kind
// BadToken says that the token is not accepted.
func (c *Client) Access(ctx context.Context) (Access, error) {
	a, req, err := c.ask(ctx, call{method: http.MethodGet, fresh: true}, "rate_limit")
	if err != nil {
		return Access{}, err
	}
	// A GitHub Enterprise without rate limits answers 404.
	if a.Code != http.StatusNotFound && a.Code >= 300 {
		return Access{}, c.newError(req, a, Repo{})
	}
	access := Access{Ahead: time.Until(c.Now()).Round(time.Second)}
	for s := range strings.SplitSeq(a.Header.Get("X-OAuth-Scopes"), ",") {
		if s = strings.TrimSpace(s); s != "" {
			access.Scopes = append(access.Scopes, s)
		}
	}
	access.Limit, _ = strconv.Atoi(a.Header.Get("X-RateLimit-Limit"))
	access.Remaining, _ = strconv.Atoi(a.Header.Get("X-RateLimit-Remaining"))
	if reset, err := strconv.ParseInt(a.Header.Get("X-RateLimit-Reset"), 10, 64); err == nil {
		access.Reset = time.Unix(reset, 0)
	}
	return access, nil
}

// MayPush reports whether the token may write to a repository.
func (c *Client) MayPush(ctx context.Context, repo Repo) (bool, error) {
	var out struct {
		Permissions struct {
			Push bool `json:"push"`
		} `json:"permissions"`
	}
	_, err := c.do(ctx, call{method: http.MethodGet, repo: repo, fresh: true}, &out)
	return out.Permissions.Push, err
}

// Hosts returns the hosts that are spoken with, by what for. Downloads are
// redirected to further ones, whose names are in GitHub's answers.
func (c *Client) Hosts() map[string]*url.URL {
	hosts := map[string]*url.URL{"API": c.api.BaseURL, "web": c.server}
	if c.api.BaseURL.Host == "api.github.com" {
		for what, host := range map[string]string{
			"trees": "codeload.github.com", "uploads": "uploads.github.com", "downloads": "release-assets.githubusercontent.com",
		} {
			hosts[what] = &url.URL{Scheme: "https", Host: host, Path: "/"}
		}
	}
	return hosts
}

// Reach sends a request to one of Hosts, without the token. Any answer of GitHub's will do:
// the error says why there is none, or that something refuses in its place.
func (c *Client) Reach(ctx context.Context, u *url.URL) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u.String(), http.NoBody)
	if err != nil {
		return err
	}
	a, err := c.transfer.Send(ctx, req)
	if err != nil {
		return describe(err)
	}
	own := sameOrigin(u, c.api.BaseURL) || sameOrigin(u, c.server) // the others require signed addresses
	if own && a.Code == http.StatusForbidden {
		if e := c.newError(req, a, Repo{}); e.Kind == Blocked {
			return e
		}
	}
	return nil
}
