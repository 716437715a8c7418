package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/transfer"
)

// A File is what is uploaded: size bytes of r, which have the digest.
type File struct {
	Name   string // of A-Z a-z 0-9 . _ -, neither beginning nor ending with a dot: GitHub would change any other
	Digest digest.Digest
	Size   int64
	Bytes  io.ReaderAt
}

// ErrOtherBytes says that a release has an asset of that name with other bytes.
var ErrOtherBytes = errors.New("the release has other bytes under this name")

// Upload adds a file to a release. Nil means that the release has these bytes
// under this name, also from another session: after an answer that leaves that open
// (an upload that ended in a 502 may be there), and after "already exists", the
// release's assets are looked at; what a broken upload left is removed, and the
// file sent again. Other bytes under the name are ErrOtherBytes.
func (c *Client) Upload(ctx context.Context, repo Repo, r *Release, f File) (Asset, error) {
	if f.Size > MaxAssetSize {
		return Asset{}, fmt.Errorf("%s: %d bytes are more than a release takes in one file", f.Name, f.Size)
	}
	var got Asset
	err := c.create(ctx, func() error {
		a, err := c.upload(ctx, repo, r, f)
		switch {
		case err == nil && f.matches(&a):
			got = a
			return nil
		case err != nil && !doubtful(err) && !Is(err, Exists):
			return err
		case err == nil:
			err = transfer.Transient(fmt.Errorf("%s: GitHub has %d bytes, %s, in state %q, of %d, %s", f.Name, a.Size, a.Digest, a.State, f.Size, f.Digest))
		}
		found, rerr := c.reconcile(ctx, repo, r, f)
		if rerr != nil {
			return rerr
		}
		if found != nil {
			got = *found
			return nil
		}
		if Is(err, Exists) {
			// It was broken, and is removed.
			return transfer.Transient(fmt.Errorf("%s: what a broken upload left had to be removed", f.Name))
		}
		return err
	})
	return got, err
}

// matches reports whether an asset is the file. Where a server lists no digest
// the size has to do: readers check all bytes.
func (f *File) matches(a *Asset) bool {
	return a.Whole() && a.Name == f.Name && a.Size == f.Size && (a.Digest == "" || a.Digest == f.Digest)
}

// reconcile finds out what a release has under the file's name: the asset if
// it is the file, and nil if there is none, any more.
func (c *Client) reconcile(ctx context.Context, repo Repo, r *Release, f File) (*Asset, error) {
	assets, err := c.Assets(ctx, repo, r.ID)
	if err != nil {
		return nil, err
	}
	for i := range assets {
		switch a := &assets[i]; {
		case a.Name != f.Name:
		case f.matches(a):
			return a, nil
		case !a.Whole():
			if err := c.DeleteAsset(ctx, repo, a.ID); err != nil {
				return nil, err
			}
		default:
			return nil, transfer.Fatal(fmt.Errorf("%s: %w", f.Name, ErrOtherBytes))
		}
	}
	return nil, nil
}

// upload sends a file, once.
func (c *Client) upload(ctx context.Context, repo Repo, r *Release, f File) (Asset, error) {
	// upload_url is a URI template: https://uploads.github.com/..{?name,label}
	raw, _, _ := strings.Cut(r.UploadURL, "{")
	to, err := url.Parse(raw)
	if err != nil || to.Host == "" {
		return Asset{}, transfer.Fatal(fmt.Errorf("%s: the API names no upload URL", repo))
	}
	if err := c.trustUploads(to); err != nil {
		return Asset{}, transfer.Fatal(err)
	}
	to.RawQuery = url.Values{"name": {f.Name}}.Encode()
	moves := 0
	for {
		if err := c.limit.wait(ctx, true); err != nil {
			return Asset{}, transfer.Fatal(named(err, repo))
		}
		req, err := http.NewRequest(http.MethodPost, to.String(), io.NewSectionReader(f.Bytes, 0, f.Size))
		if err != nil {
			return Asset{}, transfer.Fatal(err)
		}
		if req.ContentLength = f.Size; f.Size == 0 {
			req.Body = http.NoBody
		}
		req.Header.Set("Content-Type", mediaType)
		req.Header.Set("Accept", "application/vnd.github+json")
		a, err := c.transfer.Send(withToken(ctx), req)
		if err != nil {
			return Asset{}, describe(err)
		}
		if a.Code == http.StatusCreated {
			c.limit.ok()
			var got Asset
			if err := json.Unmarshal(a.Body, &got); err != nil {
				return Asset{}, transfer.Transient(fmt.Errorf("GitHub's answer to an upload: %w", err))
			}
			return got, nil
		}
		if isMoved(a.Code) && moves < maxMoves {
			// A renamed repository; the draft names the old one.
			moves++
			if to, err = to.Parse(a.Header.Get("Location")); err == nil {
				err = c.trustUploads(to)
			}
			if err != nil {
				return Asset{}, transfer.Fatal(err)
			}
			continue
		}
		e := c.newError(req, a, repo)
		if _, limited := c.limit.note(a.Code, a.Header, e.Said, time.Now()); !limited {
			return Asset{}, e
		}
	}
}
