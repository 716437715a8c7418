package ghrelease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
)

// Open brings a blob into a file without a name: several ranges of a large one
// at the same time, the parts of one that was split one after the other. It is
// an *os.File, not verified.
func (s *Store) Open(ctx context.Context, d cache.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := s.refused.Reading(); err != nil {
		return nil, err
	}
	loc, err := s.where(ctx, d)
	if err != nil {
		return nil, err
	}
	early := cache.ArrivalOf(ctx)
	f, err := cache.FillTemp(s.opt.Temp, func(f *os.File) error {
		early.From(f)
		err := s.bring(ctx, loc, f, early)
		if errors.Is(err, cache.ErrNotCached) && s.list(ctx) == nil { // a manifest led to what was pruned since
			if other, ok := s.elsewhere(d.Key, &loc.step, loc.id, loc.tag); ok {
				err = s.bring(ctx, other, f, early)
			}
		}
		if err == nil {
			_, err = f.Seek(offset, io.SeekStart)
		}
		return err
	})
	if err != nil {
		return nil, s.failed(err)
	}
	return f, nil
}

// where returns where a blob is: as Find told, or by the list of releases.
func (s *Store) where(ctx context.Context, d cache.Descriptor) (location, error) {
	s.mu.Lock()
	loc, ok := s.located[d.Key]
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

func (s *Store) bring(ctx context.Context, loc location, f *os.File, early *cache.Arrival) error {
	var at int64
	for _, p := range loc.step.files() {
		if err := s.bringPart(ctx, loc, p, early.Part(f, at)); err != nil {
			return err
		}
		at += p.Size
	}
	return nil
}

// bringPart downloads a file where anyone may, and by the API where that says
// that there is none: of a private repository, and of a draft.
func (s *Store) bringPart(ctx context.Context, loc location, p part, f cache.Part) error {
	var err error
	s.mu.Lock()
	private := s.private
	s.mu.Unlock()
	if loc.tag != "" && !private {
		err = s.gh.Transfer().Download(ctx, s.gh.DownloadURL(s.repo, loc.tag, p.Name), f, p.Size, transfer.GetOptions{})
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
	err = s.gh.Asset(ctx, s.repo, a.ID, p.Size, f)
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
