package ghrelease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// layerTag takes apart layer-<name>-<key16>.
var layerTag = lazyregexp.New(`^layer-(?:(.+)-)?([0-9a-f]{16})$`)

// Find asks for the layer's manifest where anyone may read it: a whole hit is
// one request. What is not there is looked up in the list of releases, but not without a
// token, where there is a manifest: the API has few requests for those who have none.
func (s *Store) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	found := make(map[key.Key]cache.Found)
	if err := s.refused.Reading(); err != nil {
		return nil, err
	}
	var err error
	missing := keys
	if layerTag().MatchString(tag) {
		var rec record
		if rec, err = s.published(ctx, tag); err == nil {
			for k, st := range rec.Steps {
				found[k] = cache.Found{Descriptor: st.Descriptor, Store: s.Name()}
			}
			missing = slices.DeleteFunc(slices.Clone(keys), func(k key.Key) bool {
				_, ok := found[k]
				return ok || !s.gh.HasToken()
			})
		}
	}
	if len(missing) == 0 || ctx.Err() != nil {
		return found, ctx.Err()
	}
	if err != nil && !errors.Is(err, cache.ErrNotCached) {
		return found, s.failed(err)
	}
	if err := s.list(ctx); err != nil {
		return found, s.failed(err)
	}
	for _, k := range missing {
		if loc, ok := s.lookup(k, anyStep); ok {
			found[k] = cache.Found{Descriptor: loc.step.Descriptor, Store: s.Name()}
			s.locate(loc)
		}
	}
	return found, nil
}

// asked is the answer to a request for a manifest, and when it came.
type asked struct {
	rec record
	err error
	at  time.Time
}

// published returns the manifest of a layer that is whole; ErrNotCached says
// that there is none. A plan that is made twice asks once.
func (s *Store) published(ctx context.Context, tag string) (record, error) {
	s.mu.Lock()
	a, ok := s.asked[tag]
	s.mu.Unlock()
	if ok && (a.err == nil || time.Since(a.at) < time.Minute) {
		return a.rec, a.err
	}
	rec, err := s.readNewest(ctx, tag)
	if ctx.Err() == nil {
		s.mu.Lock()
		s.asked[tag] = asked{rec, err, time.Now()}
		s.mu.Unlock()
	}
	return rec, err
}

// readNewest reads the manifest of a layer. One that leaves steps out may be of an
// immutable release, which can't be made to lead to a later one that has them, and
// has what follows them as it was made on top of that: the tags that a layer gets
// when it is built again are asked for too.
func (s *Store) readNewest(ctx context.Context, tag string) (record, error) {
	rec, err := s.readManifest(ctx, tag)
	for n := 2; err == nil && rec.Layer != nil && len(rec.Layer.LeftOut) > 0 && n <= maxSuffix; n++ {
		later, err := s.readManifest(ctx, fmt.Sprintf("%s.%d", tag, n))
		if errors.Is(err, cache.ErrNotCached) {
			break
		}
		if err != nil {
			return rec, err
		}
		if later.Layer != nil && !later.Layer.Beside && later.Layer.Name == rec.Layer.Name && later.Layer.Key == rec.Layer.Key {
			rec = later
		}
	}
	return rec, err
}

// readManifest asks where everyone may read, and then, with a token, the API.
func (s *Store) readManifest(ctx context.Context, tag string) (record, error) {
	b := transfer.Buffer{Max: 32 << 20}
	_, err := s.gh.Transfer().Get(ctx, s.gh.DownloadURL(s.repo, tag, manifestName), &b, transfer.GetOptions{})
	if err == nil {
		rec, err := parseManifest(b.Bytes())
		if err == nil {
			s.locateAll(rec, tag, 0)
			return rec, nil
		}
		// Damaged; or a page to log in at, of an Enterprise server in private mode.
		slog.Debug("a manifest makes no sense", "tag", tag, "err", err)
	} else if !notThere(err) {
		return record{}, err
	}
	if !s.gh.HasToken() {
		return record{}, cache.ErrNotCached
	}
	r, err := s.gh.ReleaseByTag(ctx, s.repo, tag)
	if github.Is(err, github.NotFound) {
		return record{}, cache.ErrNotCached
	}
	if err != nil {
		return record{}, err
	}
	h, ok := hold(*r)
	if !ok || !h.whole() {
		return record{}, cache.ErrNotCached
	}
	s.mu.Lock()
	s.releases[h.ID] = h
	s.private = true // it is there, and not for everyone
	s.mu.Unlock()
	rec := s.led(ctx, h)
	s.locateAll(rec, tag, h.ID)
	return rec, nil
}

// led returns what the manifest of a release says, which is not what its text says where it
// leads to another release: that of the layer as it was built again.
func (s *Store) led(ctx context.Context, h *held) record {
	a := h.asset(manifestName)
	own, err := h.manifest()
	if err != nil || a.Digest == "" || a.Digest == digest.FromBytes(own) {
		return h.record
	}
	b := transfer.Buffer{Max: 32 << 20}
	if _, err := s.gh.ReadAsset(ctx, s.repo, a.ID, &b, transfer.GetOptions{}); err != nil {
		return h.record
	}
	rec, err := parseManifest(b.Bytes())
	if err != nil || rec.Layer.Name != h.Layer.Name || rec.Layer.Key != h.Layer.Key {
		return h.record
	}
	return rec
}

// notThere reports whether a server's answer is that it has no such thing, or
// does not say so to everyone.
func notThere(err error) bool {
	var status *transfer.StatusError
	return errors.As(err, &status) && status.Host == "" && (status.Code == 404 || status.Code == 401 || status.Code == 410)
}

func (s *Store) locate(loc location) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.located[located{loc.step.Key, loc.step.Digest}] = loc
}

func (s *Store) locateAll(rec record, tag string, id int64) {
	for _, st := range rec.Steps {
		loc := location{step: *st, tag: tag, id: id}
		if st.Tag != "" && st.Tag != tag {
			loc.tag, loc.id = st.Tag, 0
		}
		s.locate(loc)
	}
}

// failed remembers what all further requests would get too.
func (s *Store) failed(err error) error {
	if github.Refuses(err) && s.gh.Proxied() && errhint.Of(err) == nil {
		err = errhint.With(err, "the proxy of this session lets only requests about its own repositories pass: attach "+s.repo.String()+" to the session, or use another store")
	}
	if transfer.Unreachable(err) || github.Refuses(err) {
		s.refused.Read(err, transfer.Pause(err))
	}
	return err
}

// Variants reads the manifests of the releases that have the layer too, of other snapshots,
// and, with a token, looks into the list of releases.
func (s *Store) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	found, err := s.Find(ctx, tag, keys)
	if err != nil {
		return nil, err
	}
	locations := make(map[key.Key][]location)
	for k, f := range found {
		locations[k] = []location{{step: step{Descriptor: f.Descriptor}}}
	}
	if layerTag().MatchString(tag) {
		records, err := s.besides(ctx, tag)
		if err != nil {
			return nil, s.failed(err)
		}
		for _, rec := range records {
			for _, k := range keys {
				if st := rec.Steps[k]; st != nil {
					locations[k] = append(locations[k], location{step: *st})
				}
			}
		}
	}
	if s.gh.HasToken() {
		if err := s.list(ctx); err != nil {
			return nil, s.failed(err)
		}
		for _, k := range keys {
			for _, loc := range s.variants(k) {
				s.locate(loc)
				locations[k] = append(locations[k], loc)
			}
		}
	}
	all := make(map[key.Key][]cache.Found)
	for k, list := range locations {
		for i, loc := range distinct(list) {
			if i == cache.MaxVariants {
				break
			}
			f := cache.Found{Descriptor: loc.step.Descriptor, Store: s.Name()}
			if i > 0 {
				f.Variant = i + 1
			}
			all[k] = append(all[k], f)
		}
	}
	return all, nil
}

// besides reads the manifests with the tags that a layer gets where its plain tag is used,
// a few at a time, until there are none.
func (s *Store) besides(ctx context.Context, tag string) (all []record, err error) {
	const atOnce = 4
	for from := 2; from <= maxSuffix; from += atOnce {
		records := make([]record, atOnce)
		eg, gctx := errgroup.WithContext(ctx)
		for i := range records {
			eg.Go(func() error {
				rec, err := s.readManifest(gctx, fmt.Sprintf("%s.%d", tag, from+i))
				if err == nil {
					records[i] = rec
				}
				if errors.Is(err, cache.ErrNotCached) {
					err = nil
				}
				return err
			})
		}
		if err := eg.Wait(); err != nil {
			return all, err
		}
		before := len(all)
		for _, rec := range records {
			if rec.Layer != nil {
				all = append(all, rec)
			}
		}
		if len(all) == before {
			break
		}
	}
	return all, nil
}
