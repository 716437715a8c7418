package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/clayer/clayer/cache/transfer"
)

// call is one question to the API.
type call struct {
	method string
	repo   Repo
	path   string        // below the repository, "/releases"; or a whole URL of the API's host
	accept string        // "" means GitHub's JSON
	in     any           // sent as JSON; nil for nothing
	wait   time.Duration // for a network that is not up; 0 means the client's patience
	fresh  bool          // the answer is not stored: it is about to change
	once   bool          // not to be sent again where it is not known what became of it
}

// maxMoves is how often in a row a repository may have been renamed.
const maxMoves = 5

// do asks, waits where GitHub asks for it, tries again what is transient,
// follows a renamed repository, and reads the JSON of the answer into out (nil:
// not at all). It returns the URL of the next page, "" for none.
func (c *Client) do(ctx context.Context, q call, out any) (next string, err error) {
	body, next, err := c.raw(ctx, q)
	if err != nil || out == nil {
		return "", err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return "", fmt.Errorf("GitHub's answer to %s %s: %w", q.method, transfer.Redact(q.path), err)
	}
	return next, nil
}

// raw is do without a reading of the body. A body that is no JSON, as a plain
// SHA, comes as it is.
func (c *Client) raw(ctx context.Context, q call) (body []byte, next string, err error) {
	write := q.method != http.MethodGet
	var limited time.Time // when it was first
	attempt := func() error {
		for {
			if err := c.limit.wait(ctx, write); err != nil {
				return transfer.Fatal(named(err, q.repo))
			}
			body, next, err = c.follow(ctx, q)
			// A limit that wait accepts: again, and not counted as a try. One that has no end
			// is no limit that a read waits for; a write has its budget.
			var e *Error
			if !errors.As(err, &e) || e.Kind != Limited {
				return err
			}
			if limited.IsZero() {
				limited = time.Now()
			} else if !write && time.Since(limited) > longestRead {
				return transfer.Fatal(err)
			}
		}
	}
	if q.once {
		err = attempt()
	} else {
		err = c.transfer.Retry(ctx, q.wait, attempt)
	}
	return body, next, err
}

func named(err error, repo Repo) error {
	var e *Error
	if errors.As(err, &e) {
		e.Repo = repo.String()
	}
	return err
}

// follow asks once, and again where a repository was renamed: GitHub answers
// 301 for all methods, and expects the same method there.
func (c *Client) follow(ctx context.Context, q call) ([]byte, string, error) {
	at := q.path
	if !strings.Contains(at, "://") {
		c.mu.Lock()
		base := c.moved[q.repo.path()]
		c.mu.Unlock()
		if base == "" {
			base = q.repo.path()
		}
		at = base + q.path
	}
	for range maxMoves {
		a, req, err := c.ask(ctx, q, at)
		if err != nil {
			return nil, "", err
		}
		switch code := a.Code; {
		case code >= 200 && code < 300:
			return a.Body, nextPage(a.Header.Get("Link"), c.api.BaseURL), nil
		case isMoved(code):
			to, err := req.URL.Parse(a.Header.Get("Location"))
			if err != nil || !sameOrigin(to, c.api.BaseURL) {
				return nil, "", transfer.Fatal(fmt.Errorf("%s: the API redirects to another host, and the token does not go there", q.repo))
			}
			c.learn(q, req.URL, to)
			at = to.String()
		default:
			e := c.newError(req, a, q.repo)
			if wait, limited := c.limit.note(a.Code, a.Header, e.Said, time.Now()); limited {
				e.Kind, e.Until = Limited, time.Now().Add(wait)
			}
			return nil, "", e
		}
	}
	return nil, "", transfer.Fatal(fmt.Errorf("%s: the API redirects without an end", q.repo))
}

func isMoved(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// learn remembers where a renamed repository is: /repos/o/r/x led to /repositories/1/x.
func (c *Client) learn(q call, from, to *url.URL) {
	tail := strings.TrimPrefix(from.Path, c.api.BaseURL.Path)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, base := range []string{q.repo.path(), c.moved[q.repo.path()]} {
		rest, ok := strings.CutPrefix(tail, base)
		if base == "" || !ok {
			continue
		}
		if moved, ok := strings.CutSuffix(strings.TrimPrefix(to.Path, c.api.BaseURL.Path), rest); ok {
			c.moved[q.repo.path()] = moved
		}
		return
	}
}

// ask sends one request, conditional where its answer is stored.
func (c *Client) ask(ctx context.Context, q call, at string) (*transfer.Answer, *http.Request, error) {
	req, err := c.api.NewRequest(q.method, at, q.in)
	if err != nil {
		return nil, nil, transfer.Fatal(err)
	}
	if !sameOrigin(req.URL, c.api.BaseURL) {
		return nil, nil, transfer.Fatal(fmt.Errorf("%s is not the API's host", req.URL.Host))
	}
	if q.accept != "" {
		req.Header.Set("Accept", q.accept)
	}
	var stored answer
	store := q.method == http.MethodGet && !q.fresh
	if store {
		if stored, _ = c.answers.load(req.URL.String(), q.accept); stored.ETag != "" {
			req.Header.Set("If-None-Match", stored.ETag)
		}
	}
	if req.Body == nil {
		req.Body = http.NoBody
	}
	a, err := c.transfer.Send(withToken(ctx), req)
	if err != nil {
		return nil, nil, describe(err)
	}
	if date, err := http.ParseTime(a.Header.Get("Date")); err == nil {
		c.mu.Lock()
		c.ahead = time.Until(date)
		c.mu.Unlock()
	}
	if a.Code == http.StatusNotModified && stored.ETag != "" {
		a.Code, a.Body = http.StatusOK, unquoted(stored.Body, q.accept)
		a.Header.Set("Link", stored.Link)
	} else if a.Code == http.StatusOK && store {
		c.answers.store(req.URL.String(), q.accept, answer{ETag: a.Header.Get("ETag"), Link: a.Header.Get("Link"), Body: quoted(a.Body, q.accept)})
	}
	if a.Code < 300 {
		c.limit.ok()
	}
	return a, req, nil
}

// quoted makes JSON of an answer that is none.
func quoted(body []byte, accept string) json.RawMessage {
	if accept == "" {
		return body
	}
	q, err := json.Marshal(string(body))
	if err != nil {
		return nil
	}
	return q
}

func unquoted(body json.RawMessage, accept string) []byte {
	var s string
	if accept == "" || json.Unmarshal(body, &s) != nil {
		return body
	}
	return []byte(s)
}

// nextPage reads the Link header (RFC 8288). A page on another host is none.
func nextPage(link string, api *url.URL) string {
	for part := range strings.SplitSeq(link, ",") {
		target, params, ok := strings.Cut(part, ";")
		target = strings.TrimSpace(target)
		if !ok || !strings.Contains(params, `rel="next"`) || !strings.HasPrefix(target, "<") || !strings.HasSuffix(target, ">") {
			continue
		}
		if u, err := api.Parse(strings.Trim(target, "<>")); err == nil && sameOrigin(u, api) {
			return u.String()
		}
	}
	return ""
}

// pages asks for all pages of a list. each is called with the decoded page.
func pages[T any](ctx context.Context, c *Client, q call) ([]T, error) {
	var all []T
	for range 1000 { // a server whose pages never end is not followed for ever
		var page []T
		next, err := c.do(ctx, q, &page)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == "" {
			return all, nil
		}
		q.path = next
	}
	return nil, fmt.Errorf("%s: the list has no end", q.repo)
}
