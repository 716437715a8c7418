package ghrelease

import (
	"context"
	"errors"
	"fmt"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
)

// Fetch downloads a blob: several ranges of a large one at the same time, the parts of
// one that was split one after the other. It is complete, and not verified.
func (s *Store) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	if err := s.refused.Reading(); err != nil {
		return err
	}
	loc, err := s.where(ctx, d)
	if err != nil {
		return err
	}
	err = b.Fill(s.opt.Temp, d, func(w cache.Writer) error {
		err := s.download(ctx, loc, w)
		if errors.Is(err, cache.ErrNotCached) && s.list(ctx) == nil { // a manifest led to what was pruned since
			if other, ok := s.elsewhere(d.Key, &loc.step, loc.id, loc.tag); ok {
				err = s.download(ctx, other, w)
			}
		}
		return err
	})
	if err != nil {
		return s.failed(err)
	}
	return nil
}

// where returns where a blob is: as Find reported, or by the list of releases.
func (s *Store) where(ctx context.Context, d cache.Descriptor) (location, error) {
	s.mu.Lock()
	loc, ok := s.located[located{d.Key, d.Digest}]
	s.mu.Unlock()
	if ok && loc.step.Digest == d.Digest && loc.step.Size == d.Size {
		return loc, nil
	}
	if err := s.list(ctx); err != nil {
		return loc, err
	}
	if loc, ok = s.lookup(d.Key, sameBytes(d)); !ok {
		return loc, fmt.Errorf("%w: %s", cache.ErrNotCached, d.Key.Short())
	}
	return loc, nil
}

func (s *Store) download(ctx context.Context, loc location, w cache.Writer) error {
	var at int64
	for _, p := range loc.step.files() {
		if err := s.downloadPart(ctx, loc, p, w.From(at)); err != nil {
			return err
		}
		at += p.Size
	}
	return nil
}

// downloadPart downloads a file where anyone may, and by the API where that says
// that there is none: of a private repository, and of a draft.
func (s *Store) downloadPart(ctx context.Context, loc location, p part, w cache.Writer) error {
	var err error
	s.mu.Lock()
	private := s.private
	s.mu.Unlock()
	if loc.tag != "" && !private {
		err = s.gh.Transfer().Download(ctx, s.gh.DownloadURL(s.repo, loc.tag, p.Name), w, p.Size, transfer.GetOptions{})
		var other *transfer.SizeError // an Enterprise server in private mode answers with a page to log in at
		if err == nil || !notThere(err) && !errors.As(err, &other) {
			return err
		}
		if !s.gh.HasToken() {
			return fmt.Errorf("%w: %w", cache.ErrNotCached, err)
		}
	}
	h, err := s.release(ctx, loc)
	if err != nil {
		return err
	}
	a := h.asset(p.Name)
	if a == nil {
		return fmt.Errorf("%w: %s has no %s", cache.ErrNotCached, h.Tag, p.Name)
	}
	err = s.gh.Asset(ctx, s.repo, a.ID, p.Size, w)
	var status *transfer.StatusError
	if errors.As(err, &status) && status.Host == "" && status.Code == 404 {
		return fmt.Errorf("%w: %w", cache.ErrNotCached, err)
	}
	return err
}

// release returns the release of a location, asking for one that is not known.
func (s *Store) release(ctx context.Context, loc location) (*held, error) {
	s.mu.Lock()
	h := s.releases[loc.id]
	for _, x := range s.releases {
		if h == nil && loc.tag != "" && x.Tag == loc.tag && !x.Draft {
			h = x
		}
	}
	s.mu.Unlock()
	if h != nil {
		return h, nil
	}
	r, err := s.gh.ReleaseByTag(ctx, s.repo, loc.tag)
	if github.Is(err, github.NotFound) {
		return nil, fmt.Errorf("%w: %w", cache.ErrNotCached, err)
	}
	if err != nil {
		return nil, err
	}
	h, _ = hold(*r)
	s.mu.Lock()
	s.releases[h.ID] = h
	s.mu.Unlock()
	return h, nil
}
