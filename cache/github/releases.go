package github

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/transfer"
)

// A Release is one of a repository's, as far as it is needed.
type Release struct {
	ID         int64     `json:"id"`
	Tag        string    `json:"tag_name"`
	Title      string    `json:"name"`
	Body       string    `json:"body"`
	Draft      bool      `json:"draft"`
	Prerelease bool      `json:"prerelease"`
	Immutable  bool      `json:"immutable"`
	Created    time.Time `json:"created_at"`
	UploadURL  string    `json:"upload_url"`
	Assets     []Asset   `json:"assets"`
}

// An Asset is a file of a release.
type Asset struct {
	ID      int64         `json:"id"`
	Name    string        `json:"name"`
	State   string        `json:"state"` // "uploaded"; "starter" is what a broken upload leaves
	Size    int64         `json:"size"`
	Digest  digest.Digest `json:"digest"` // "" for one from before June 2025, and on old servers
	Updated time.Time     `json:"updated_at"`
}

// Whole reports whether all of an asset is there.
func (a *Asset) Whole() bool { return a.State == "uploaded" }

// Limits of GitHub's.
const (
	MaxAssets    = 1000      // of a release
	MaxAssetSize = 2<<30 - 1 // a file must be under 2 GiB
	MaxBody      = 125_000   // characters of a release's text

	mediaType = "application/octet-stream"
	perPage   = "?per_page=100" // the most there is
)

// Info is what is asked about a repository.
type Info struct {
	Private  bool `json:"private"`
	Archived bool `json:"archived"`
}

// Info asks about a repository, once.
func (c *Client) Info(ctx context.Context, repo Repo) (Info, error) {
	c.mu.Lock()
	i, ok := c.infos[repo]
	c.mu.Unlock()
	if ok {
		return i, nil
	}
	_, err := c.do(ctx, call{method: http.MethodGet, repo: repo}, &i)
	if err == nil {
		c.mu.Lock()
		c.infos[repo] = i
		c.mu.Unlock()
	}
	return i, err
}

// Releases lists all releases; drafts too, for a token that may push.
func (c *Client) Releases(ctx context.Context, repo Repo) ([]Release, error) {
	return pages[Release](ctx, c, call{method: http.MethodGet, repo: repo, path: "/releases" + perPage})
}

// ReleaseByTag returns a published release.
func (c *Client) ReleaseByTag(ctx context.Context, repo Repo, tag string) (*Release, error) {
	var r Release
	_, err := c.do(ctx, call{method: http.MethodGet, repo: repo, path: "/releases/tags/" + url.PathEscape(tag)}, &r)
	return &r, err
}

// Release returns a release, draft or not.
func (c *Client) Release(ctx context.Context, repo Repo, id int64) (*Release, error) {
	var r Release
	_, err := c.do(ctx, call{method: http.MethodGet, repo: repo, path: "/releases/" + strconv.FormatInt(id, 10), fresh: true}, &r)
	return &r, err
}

// A Change is what a release is to be. Fields that are nil stay as they are.
type Change struct {
	Tag        *string `json:"tag_name,omitempty"`
	Title      *string `json:"name,omitempty"`
	Body       *string `json:"body,omitempty"`
	Draft      *bool   `json:"draft,omitempty"`
	Prerelease *bool   `json:"prerelease,omitempty"`
	Latest     string  `json:"make_latest,omitempty"` // "false": the cache is no latest version
}

// NewDraft makes a draft. Its tag is no tag of Git's until it is published.
// Where an answer gets lost, the draft that it was about is found by its title
// and text, which must be unique for that.
func (c *Client) NewDraft(ctx context.Context, repo Repo, ch Change) (*Release, error) {
	yes := true
	ch.Draft, ch.Prerelease = &yes, &yes
	var r Release
	err := c.create(ctx, func() error {
		_, err := c.do(ctx, call{method: http.MethodPost, repo: repo, path: "/releases", in: ch, once: true}, &r)
		if err == nil || !doubtful(err) {
			return err
		}
		all, lerr := c.Releases(ctx, repo)
		if lerr != nil {
			return errors.Join(err, lerr)
		}
		for i := range all {
			if a := &all[i]; a.Draft && a.Title == *ch.Title && a.Body == *ch.Body {
				r = *a
				return nil
			}
		}
		return err
	})
	return &r, err
}

// create has one request that creates something at a time, paced, and sends
// it again after an error that is transient. f finds out what became of a
// request whose answer is doubtful.
func (c *Client) create(ctx context.Context, f func() error) error {
	return c.transfer.Retry(ctx, 0, func() error {
		if err := c.alone(ctx); err != nil {
			return err
		}
		defer c.next()
		if err := c.pace.Wait(ctx); err != nil {
			return err
		}
		return f()
	})
}

// alone waits until no other request that changes something is under way, and
// next ends this one's turn.
func (c *Client) alone(ctx context.Context) error {
	select {
	case c.creating <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Client) next() { <-c.creating }

// doubtful reports whether a request may have had its effect all the same.
func doubtful(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Code >= 500
	}
	return !transfer.IsFatal(err)
}

// Edit changes a release.
func (c *Client) Edit(ctx context.Context, repo Repo, id int64, ch Change) (*Release, error) {
	var r Release
	if err := c.alone(ctx); err != nil {
		return nil, err
	}
	defer c.next()
	_, err := c.do(ctx, call{method: http.MethodPatch, repo: repo, path: "/releases/" + strconv.FormatInt(id, 10), in: ch}, &r)
	return &r, err
}

// Publish makes a draft a prerelease, which is never the latest version.
func (c *Client) Publish(ctx context.Context, repo Repo, id int64, ch Change) (*Release, error) {
	no, yes := false, true
	ch.Draft, ch.Prerelease, ch.Latest = &no, &yes, "false"
	return c.Edit(ctx, repo, id, ch)
}

// Delete removes a release, and its tag if it was published. One that is not
// there is no error.
func (c *Client) Delete(ctx context.Context, repo Repo, r *Release) error {
	err := c.remove(ctx, repo, "/releases/"+strconv.FormatInt(r.ID, 10))
	if err != nil || r.Draft {
		return err
	}
	err = c.remove(ctx, repo, "/git/refs/tags/"+url.PathEscape(r.Tag))
	if Is(err, Invalid) { // "Reference does not exist"
		return nil
	}
	return err
}

// DeleteAsset removes an asset. One that is not there is no error.
func (c *Client) DeleteAsset(ctx context.Context, repo Repo, id int64) error {
	return c.remove(ctx, repo, "/releases/assets/"+strconv.FormatInt(id, 10))
}

func (c *Client) remove(ctx context.Context, repo Repo, path string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, repo: repo, path: path}, nil)
	if e := new(Error); errors.As(err, &e) && e.Code == http.StatusNotFound {
		return nil
	}
	return err
}

// Assets lists the assets of a release. Other than a list of releases it has
// what a broken upload left.
func (c *Client) Assets(ctx context.Context, repo Repo, release int64) ([]Asset, error) {
	return pages[Asset](ctx, c, call{method: http.MethodGet, repo: repo, path: "/releases/" + strconv.FormatInt(release, 10) + "/assets" + perPage, fresh: true})
}

// DownloadURL is where anyone gets an asset of a public repository's published
// release: no call of the API, no token, no limit.
func (c *Client) DownloadURL(repo Repo, tag, asset string) string {
	return c.web(repo, "/releases/download/"+url.PathEscape(tag)+"/"+url.PathEscape(asset))
}

// Asset writes an asset to f, by the API: of a private repository, or a draft.
// Each attempt asks the API for a fresh address.
func (c *Client) Asset(ctx context.Context, repo Repo, id, size int64, f transfer.File) error {
	if err := c.limit.wait(ctx, false); err != nil {
		return named(err, repo)
	}
	return c.transfer.Download(withToken(ctx), c.assetURL(repo, id), f, size, assetOptions)
}

// ReadAsset writes an asset of unknown size to w, by the API.
func (c *Client) ReadAsset(ctx context.Context, repo Repo, id int64, w io.Writer, opt transfer.GetOptions) (transfer.Result, error) {
	opt.Header = assetOptions.Header
	return c.transfer.Get(withToken(ctx), c.assetURL(repo, id), w, opt)
}

// ReadReleaseFile writes the file of a release, whose DownloadURL is given, to
// w by the API. It reports false where that is no such URL, there is no token,
// or the API knows of no such file either.
func (c *Client) ReadReleaseFile(ctx context.Context, rawURL string, w io.Writer, opt transfer.GetOptions) (transfer.Result, bool, error) {
	rest, ok := strings.CutPrefix(rawURL, c.server.String())
	parts := strings.Split(rest, "/")
	if !ok || c.token == "" || len(parts) != 6 || parts[2] != "releases" || parts[3] != "download" {
		return transfer.Result{}, false, nil
	}
	repo, err := ParseRepo(parts[0] + "/" + parts[1])
	tag, err1 := url.PathUnescape(parts[4])
	name, err2 := url.PathUnescape(parts[5])
	if errors.Join(err, err1, err2) != nil {
		return transfer.Result{}, false, nil
	}
	if i, err := c.Info(ctx, repo); err != nil || !i.Private {
		return transfer.Result{}, false, nil // of a public one the server has said all
	}
	r, err := c.ReleaseByTag(ctx, repo, tag)
	if err != nil {
		return transfer.Result{}, false, nil // what the URL said stands
	}
	for i := range r.Assets {
		if a := &r.Assets[i]; a.Name == name && a.Whole() {
			res, err := c.ReadAsset(ctx, repo, a.ID, w, opt)
			return res, true, err
		}
	}
	return transfer.Result{}, false, nil
}

func (c *Client) assetURL(repo Repo, id int64) string {
	return c.api.BaseURL.String() + repo.path() + "/releases/assets/" + strconv.FormatInt(id, 10)
}

var assetOptions = transfer.GetOptions{Header: http.Header{"Accept": {mediaType}}}
