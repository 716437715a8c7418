package s3

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
)

// readable returns why nothing is read; nil where nothing is known.
func (s *Store) readable() error {
	if err := s.refused.Reading(); err != nil {
		return err
	}
	s.asking.Lock()
	defer s.asking.Unlock()
	return s.denied
}

// get reads a small object, and returns its ETag. ErrNotCached says that there is none.
func (s *Store) get(ctx context.Context, name string, max int) ([]byte, string, error) {
	if err := s.readable(); err != nil {
		return nil, "", err
	}
	ans, err := s.send(ctx, reading, request{method: http.MethodGet, name: name})
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusForbidden && !e.refusesLogin() {
		return nil, "", s.hidden(ctx, e)
	}
	if err != nil {
		return nil, "", err
	}
	if len(ans.Body) > max {
		return nil, "", fmt.Errorf("%w: %s: larger than %d bytes", cache.ErrNotCached, name, max)
	}
	return ans.Body, ans.Header.Get("ETag"), nil
}

// hidden returns what a 403 for an object means. Who may not list a bucket gets it also for
// an object that is missing: if the marker can be read, that is the case.
func (s *Store) hidden(ctx context.Context, e *Error) error {
	s.asking.Lock()
	defer s.asking.Unlock()
	if s.mark == nil {
		if err := cmp.Or(s.refused.Reading(), s.denied); err != nil {
			return err
		}
		if err := s.readMarker(ctx); err != nil {
			var denied *Error
			if errors.As(err, &denied) && denied.Status == http.StatusForbidden || errors.Is(err, cache.ErrNotCached) {
				s.denied = e
				return e
			}
			return err
		}
	}
	return &missingError{e}
}

// decode reads an object of JSON. What is no such object is ErrNotCached.
func (s *Store) decode(ctx context.Context, name string, max int, v any, check func() error) (etag string, err error) {
	data, etag, err := s.get(ctx, name, max)
	if err != nil {
		return etag, err
	}
	err = json.Unmarshal(data, v)
	if err == nil {
		err = check()
	}
	if err != nil {
		return etag, fmt.Errorf("%w: %s: %w", cache.ErrNotCached, name, err)
	}
	return etag, nil
}

// layer reads the manifest of a layer.
func (s *Store) layer(ctx context.Context, name string) (m cache.Manifest, etag string, err error) {
	etag, err = s.decode(ctx, name, maxManifest, &m, func() error {
		if m.Key.IsZero() || layerName(m.Tag()) != name || slices.ContainsFunc(m.Steps, func(d cache.Descriptor) bool { return !valid(d) }) {
			return errors.New("not the layer of its name")
		}
		return nil
	})
	return m, etag, err
}

// step reads a snapshot of a key.
func (s *Store) step(ctx context.Context, name string, k key.Key) (d cache.Descriptor, etag string, err error) {
	etag, err = s.decode(ctx, name, maxStep, &d, func() error {
		if d.Key != k || !valid(d) {
			return errors.New("not the descriptor of its key")
		}
		return nil
	})
	return d, etag, err
}

func valid(d cache.Descriptor) bool {
	return !d.Key.IsZero() && cache.ValidDigest(d.Digest) && d.Size >= 0
}

// Find asks for the layer's manifest, which is all of a whole hit, and for each step that
// it lacks.
func (s *Store) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	found := make(map[key.Key]cache.Found)
	if strings.HasPrefix(tag, "layer-") {
		m, _, err := s.layer(ctx, layerName(tag))
		if err != nil && !errors.Is(err, cache.ErrNotCached) {
			return found, err
		}
		if err == nil {
			for _, d := range m.Steps {
				found[d.Key] = cache.Found{Descriptor: d, Store: s.name}
			}
		}
	}
	err := cache.FindEach(ctx, s.name, found, keys, atOnce, func(ctx context.Context, k key.Key) (cache.Descriptor, error) {
		d, _, err := s.step(ctx, stepName(k), k)
		return d, err
	})
	for _, f := range found {
		s.know(f.Descriptor)
	}
	return found, err
}

// A stored snapshot is an object that describes one.
type stored struct {
	cache.Descriptor
	name string
	etag string
	at   time.Time // by the clock of the service
}

// variants lists the objects of a key, and reads them: the first one first, then the
// newest.
func (s *Store) variants(ctx context.Context, k key.Key) ([]stored, error) {
	objects, err := s.list(ctx, strings.TrimSuffix(stepName(k), "json"))
	if err != nil {
		return nil, err
	}
	all, err := s.readSteps(ctx, objects)
	order.Stable(all, func(a, b stored) int {
		isFirst := func(st stored) int {
			if st.name == stepName(k) {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(isFirst(a), isFirst(b)), b.Created.Compare(a.Created))
	})
	return all, err
}

// readSteps reads what describes snapshots. What is not there any more, or makes no sense,
// is left out.
func (s *Store) readSteps(ctx context.Context, objects []object) ([]stored, error) {
	all := make([]stored, len(objects))
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for i, o := range objects {
		k, ok := keyOf(o.name)
		if !ok {
			continue
		}
		eg.Go(func() error {
			d, etag, err := s.step(gctx, o.name, k)
			if errors.Is(err, cache.ErrNotCached) { // it is listed: what needs it must not be removed by a slip
				d, etag, err = s.step(gctx, o.name, k)
			}
			if errors.Is(err, cache.ErrNotCached) {
				slog.Debug("an object of the bucket is none of ours, or gone", "name", o.name, "err", err)
				return nil
			}
			all[i] = stored{d, o.name, etag, o.at}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(st stored) bool { return st.name == "" }), nil
}

// keyOf returns the key in the name of a step's object.
func keyOf(name string) (k key.Key, ok bool) {
	_, file, ok := strings.Cut(strings.TrimPrefix(name, keysDir), "/")
	hex, _, _ := strings.Cut(file, ".")
	if !ok || !strings.HasSuffix(file, ".json") {
		return k, false
	}
	k, err := key.Parse(hex)
	return k, err == nil
}

// Variants lists the objects of each key. Who may not list the bucket gets the snapshots
// that Find returns.
func (s *Store) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	found, err := s.Find(ctx, tag, keys)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	all := make(map[key.Key][]cache.Found)
	for k, f := range found {
		all[k] = []cache.Found{f}
	}
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for _, k := range keys {
		eg.Go(func() error {
			steps, err := s.variants(gctx, k)
			if e := (*Error)(nil); errors.As(err, &e) && e.act == listing && e.Status == http.StatusForbidden {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			for _, st := range steps {
				if len(all[k]) == cache.MaxVariants || slices.ContainsFunc(all[k], func(f cache.Found) bool { return same(f.Descriptor, st.Descriptor) }) {
					continue
				}
				f := cache.Found{Descriptor: st.Descriptor, Store: s.name}
				if n := len(all[k]); n > 0 {
					f.Variant = n + 1
				}
				all[k] = append(all[k], f)
			}
			return err
		})
	}
	return all, eg.Wait()
}

func same(a, b cache.Descriptor) bool { return a.Digest == b.Digest && a.VariantID() == b.VariantID() }

// Fetch downloads a blob, several ranges of a large one at the same time. It is complete,
// and not verified.
func (s *Store) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	if err := s.readable(); err != nil {
		return err
	}
	if !valid(d) {
		return fmt.Errorf("%w: digest %q", cache.ErrNotCached, d.Digest)
	}
	name := blobName(d.Digest)
	return b.Fill(s.temp, d, func(w cache.Writer) error {
		err := s.tr.Download(ctx, s.login.address(s.at.bucket, s.at.object(name)), w, d.Size, transfer.GetOptions{})
		var status *transfer.StatusError
		if !errors.As(err, &status) || status.Limited || status.Code/100 != 4 {
			return s.explain(ctx, reading, err)
		}
		missing := fmt.Errorf("%w: %s", cache.ErrNotCached, name)
		if status.Code == http.StatusNotFound || status.Code == http.StatusGone {
			s.forget(d.Digest)
			return missing
		}
		// A small object's answer says why.
		if _, _, why := s.get(ctx, markerName, maxStep); why == nil {
			s.forget(d.Digest)
			return missing
		} else if e := (*Error)(nil); errors.As(why, &e) && !errors.Is(why, cache.ErrNotCached) {
			return why
		}
		return s.explain(ctx, reading, err)
	})
}

// An object is one of a listing.
type object struct {
	name string // below the prefix of the store
	size int64
	at   time.Time
}

// list returns the objects whose names, below the prefix of the store, begin so.
func (s *Store) list(ctx context.Context, prefix string) (all []object, err error) {
	if err := s.refused.Reading(); err != nil {
		return nil, err
	}
	query := url.Values{"list-type": {"2"}, "prefix": {s.at.object(prefix)}}
	for range maxPages {
		ans, err := s.send(ctx, listing, request{method: http.MethodGet, query: query})
		if err != nil {
			return nil, err
		}
		var page struct {
			XMLName  xml.Name `xml:"ListBucketResult"`
			Contents []struct {
				Key          string
				Size         int64
				LastModified time.Time
			}
			IsTruncated           bool
			NextContinuationToken string
		}
		if err := xml.Unmarshal(ans.Body, &page); err != nil {
			return nil, fmt.Errorf("list %s: not the list of a bucket: %w", s.at, err)
		}
		for _, c := range page.Contents {
			if name, ok := strings.CutPrefix(c.Key, s.at.object("")); ok {
				all = append(all, object{name, c.Size, c.LastModified})
			}
		}
		if !page.IsTruncated || page.NextContinuationToken == "" {
			return all, nil
		}
		query.Set("continuation-token", page.NextContinuationToken)
	}
	return nil, fmt.Errorf("list %s: more than %d pages", s.at, maxPages)
}

// A named layer is one with its object.
type named struct {
	cache.Manifest
	name string
}

// layers lists and reads the manifests of layers.
func (s *Store) layers(ctx context.Context) ([]named, error) {
	objects, err := s.list(ctx, layersDir)
	if err != nil {
		return nil, err
	}
	all := make([]named, len(objects))
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for i, o := range objects {
		eg.Go(func() error {
			m, _, err := s.layer(gctx, o.name)
			if errors.Is(err, cache.ErrNotCached) { // as in readSteps
				m, _, err = s.layer(gctx, o.name)
			}
			if errors.Is(err, cache.ErrNotCached) {
				slog.Debug("a layer of the bucket is none of ours, or gone", "name", o.name, "err", err)
				return nil
			}
			all[i] = named{m, o.name}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(l named) bool { return l.name == "" }), nil
}

// List returns the complete layers, newest first.
func (s *Store) List(ctx context.Context) ([]cache.Manifest, error) {
	layers, err := s.layers(ctx)
	if err != nil {
		return nil, err
	}
	var all []cache.Manifest
	for _, l := range layers {
		all = append(all, l.Manifest)
	}
	order.Stable(all, cache.NewestFirst)
	return all, nil
}

// Interrupted returns the steps that no layer has, by the name of the layer that they were
// made for.
func (s *Store) Interrupted(ctx context.Context) ([]cache.Manifest, error) {
	layers, err := s.layers(ctx)
	if err != nil {
		return nil, err
	}
	used := make(map[string]bool)
	for _, l := range layers {
		for _, d := range l.Steps {
			used[stepName(d.Key)] = true
		}
	}
	objects, err := s.list(ctx, keysDir)
	if err != nil {
		return nil, err
	}
	steps, err := s.readSteps(ctx, slices.DeleteFunc(objects, func(o object) bool {
		k, ok := keyOf(o.name)
		return !ok || o.name != stepName(k) || used[o.name]
	}))
	if err != nil {
		return nil, err
	}
	order.Stable(steps, func(a, b stored) int { return a.Created.Compare(b.Created) })
	var all []cache.Manifest
	for _, st := range steps {
		i := slices.IndexFunc(all, func(m cache.Manifest) bool { return m.Name == st.Layer })
		if i < 0 {
			i = len(all)
			all = append(all, cache.Manifest{Name: st.Layer})
		}
		all[i].Steps = append(all[i].Steps, st.Descriptor)
		all[i].Key, all[i].Created = st.Key, st.Created
	}
	return all, nil
}

// exists reports whether an object of a size is there.
func (s *Store) exists(ctx context.Context, name string, size int64) (bool, error) {
	ans, err := s.send(ctx, reading, request{method: http.MethodHead, name: name})
	var e *Error
	switch {
	case errors.Is(err, cache.ErrNotCached), errors.As(err, &e) && e.Status == http.StatusForbidden && !e.refusesLogin():
		return false, nil // who may not read at all may not write either, which is found out then
	case err != nil:
		return false, err
	}
	n, err := strconv.ParseInt(ans.Header.Get("Content-Length"), 10, 64)
	return err == nil && n == size, nil
}
