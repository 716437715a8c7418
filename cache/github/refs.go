package github

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/clayer/clayer/cache/transfer"
)

// IsCommit reports whether a ref is a whole commit id, which nothing has to
// resolve.
func IsCommit(ref string) bool {
	return len(ref) == 40 && strings.Trim(ref, "0123456789abcdef") == ""
}

// A NoRefError says that a repository is there, but a ref in it is not.
type NoRefError struct {
	Repo Repo
	Ref  string // "" for the default branch: the repository is empty
}

func (e *NoRefError) Error() string {
	if e.Ref == "" {
		return fmt.Sprintf("%s has no commit yet", e.Repo)
	}
	return fmt.Sprintf("%s has no branch, tag or commit %q", e.Repo, e.Ref)
}

// Commit returns the commit that a ref (branch, tag, commit or the beginning of
// one; "" for the default branch) is at. Where the API refuses, or can't be
// reached, Git's own protocol is asked.
//
// wait is how long a network that is not up is waited for; 0 means 30 s.
//
// The error is a *NoRefError where the repository says that there is none, and
// else that of the API, joined with that of the other way.
func (c *Client) Commit(ctx context.Context, repo Repo, ref string, wait time.Duration) (string, error) {
	if IsCommit(ref) {
		return ref, nil
	}
	ask := strings.TrimPrefix(ref, "refs/") // the API expects heads/x, tags/x, or x alone
	if ask == "" {
		ask = "HEAD"
	}
	body, _, err := c.raw(ctx, call{
		method: http.MethodGet, repo: repo, path: "/commits/" + escapeRef(ask),
		accept: "application/vnd.github.sha", wait: wait,
	})
	if err == nil {
		if id := strings.TrimSpace(string(body)); IsCommit(id) {
			return id, nil
		}
		err = fmt.Errorf("%s: the API's answer is no commit id", repo)
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	c.refuses(source{repo, false}, err)
	switch {
	case errors.Is(err, transfer.ErrOffline):
		return "", err
	case Is(err, Invalid): // 422 "No commit found for SHA: x"
		return "", transfer.Fatal(&NoRefError{repo, ref})
	case Is(err, Empty):
		return "", transfer.Fatal(&NoRefError{repo, ""})
	}
	if transfer.Unreachable(err) {
		wait = time.Second // enough was waited
	}
	id, gitErr := c.advertised(ctx, repo, ref, wait)
	if gitErr == nil {
		return id, nil
	}
	c.refuses(source{repo, true}, gitErr)
	var none *NoRefError
	if errors.As(gitErr, &none) {
		return "", gitErr
	}
	var status *transfer.StatusError
	if errors.As(gitErr, &status) && (Is(err, NotFound) || Is(err, BadToken)) {
		return "", err // both say no
	}
	return "", fmt.Errorf("%w; and by Git's protocol: %w", err, gitErr)
}

func escapeRef(ref string) string {
	parts := strings.Split(ref, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

// maxAdvertised bounds a ref advertisement: each pull request has refs too.
const maxAdvertised = 128 << 20

// errEnough ends a download whose rest is of no use.
var errEnough = errors.New("enough")

// advertised reads a repository's refs by Git's smart HTTP protocol
// (gitprotocol-http, version 0), which the API's rate limit does not count.
func (c *Client) advertised(ctx context.Context, repo Repo, ref string, wait time.Duration) (string, error) {
	r, w := io.Pipe()
	got := make(chan error, 1)
	go func() {
		limited := &capped{w: w, left: maxAdvertised}
		_, err := c.transfer.Get(withToken(ctx), c.web(repo, ".git/info/refs?service=git-upload-pack"), limited, transfer.GetOptions{Patience: wait})
		w.CloseWithError(err)
		got <- err
	}()
	id, err := findRef(bufio.NewReaderSize(r, 1<<16), ref)
	r.CloseWithError(errEnough)
	if gerr := <-got; gerr != nil && !errors.Is(gerr, errEnough) {
		return "", gerr
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", repo, err)
	}
	if id == "" {
		return "", transfer.Fatal(&NoRefError{repo, ref})
	}
	return id, nil
}

type capped struct {
	w    io.Writer
	left int
}

func (c *capped) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		return 0, errors.New("more refs than anyone has")
	}
	return c.w.Write(p)
}

// findRef reads pkt-lines: "001e# service=git-upload-pack\n", a flush, then
// "<id> <name>[\0capabilities]\n". A tag object is followed by its commit under
// the name with "^{}". As git rev-parse, a tag goes before a branch.
func findRef(r *bufio.Reader, ref string) (string, error) {
	best, rank := "", 0
	for first := true; ; first = false {
		line, err := pktLine(r)
		if err == io.EOF && !first {
			return best, nil
		}
		if err != nil {
			return "", fmt.Errorf("no Git repository answers there: %w", err)
		}
		if first && !bytes.HasPrefix(line, []byte("# service=git-upload-pack")) {
			return "", errors.New("no Git repository answers there")
		}
		line, _, _ = bytes.Cut(line, []byte{0})
		id, name, ok := strings.Cut(strings.TrimRight(string(line), "\n"), " ")
		if !ok || !IsCommit(id) {
			continue
		}
		n := 0
		switch name {
		case "HEAD":
			if ref == "" || ref == "HEAD" {
				return id, nil // it stands first
			}
		case ref:
			n = 6
		case "refs/tags/" + ref + "^{}":
			n = 5
		case "refs/tags/" + ref:
			n = 4
		case "refs/heads/" + ref:
			n = 3
		case "refs/" + ref + "^{}", ref + "^{}":
			n = 7
		case "refs/" + ref:
			n = 2
		}
		if ref != "" && n > rank {
			best, rank = id, n
		}
	}
}

// pktLine returns the payload of a pkt-line, nil for a flush.
func pktLine(r *bufio.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil || n > 0 && n < 4 {
		return nil, errors.New("malformed pkt-line")
	}
	if n == 0 {
		return nil, nil
	}
	line := make([]byte, n-4)
	_, err = io.ReadFull(r, line)
	return line, err
}

// A source is what gives trees of a repository: the API, or the server of pages.
type source struct {
	repo Repo
	web  bool
}

// refuses remembers that a source refused what is less than a tree: it is not asked for one.
func (c *Client) refuses(from source, err error) {
	if Refuses(err) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.noTree[from] = err
	}
}

func (c *Client) refused(from source) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.noTree[from]
}

// TreeByAPI writes the tarball of a commit's tree to w, by the API's link. GitHub makes
// these when asked: their bytes may differ, their content does not.
func (c *Client) TreeByAPI(ctx context.Context, repo Repo, commit string, w transfer.Rewinder) (transfer.Result, error) {
	if err := cmp.Or(c.refused(source{repo, false}), c.limit.wait(ctx, false)); err != nil {
		return transfer.Result{}, err
	}
	at := c.api.BaseURL.String() + repo.path() + "/tarball/" + commit
	return c.transfer.Get(withToken(ctx), at, w, transfer.GetOptions{})
}

// TreeByWeb writes the same tarball to w, by the server's link, without the token.
func (c *Client) TreeByWeb(ctx context.Context, repo Repo, commit string, w transfer.Rewinder) (transfer.Result, error) {
	if err := c.refused(source{repo, true}); err != nil {
		return transfer.Result{}, err
	}
	return c.transfer.Get(ctx, c.web(repo, "/archive/"+commit+".tar.gz"), w, transfer.GetOptions{})
}

// CloneURL returns the address by which git clones a repository, without the token.
func (c *Client) CloneURL(repo Repo) string { return c.web(repo, ".git") }
