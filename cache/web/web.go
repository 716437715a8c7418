// Package web reads a store that a web server has: the directory of package dir,
// copied to a bucket, a site, or a repository that is served raw. Nothing is written
// to it.
//
//	index.json            names the complete layers
//	blobs/sha256/<hex>    snapshots, and the manifests of layers
//	keys/<hh>/<hex>.json  a step
//
// Export writes such a directory too; where a server bounds the size of files, with large
// snapshots in pieces.
//
// A whole layer takes two requests before its blobs: for the index, which is asked for
// once, and for the layer's manifest. The index is read first in any case. Where it is
// there, an answer 403 to another file means that this file is missing: buckets that
// nobody may list answer so.
package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
)

// Options say how a store is read. The zero value is the default.
type Options struct {
	Login    Login            // sent to the server of the store, and to no other
	Name     string           // how it is called in output; "" means "https"
	Temp     string           // the directory for blobs that arrive; "" means the system's
	Transfer transfer.Options // how bytes are moved; Wrap is set by New
}

// A Store is a store on a web server. It is safe for concurrent use.
type Store struct {
	at      *url.URL
	login   Login
	name    string
	temp    string
	tr      *transfer.Client
	refused transfer.Refusals

	reading sync.Mutex        // held while the index is read
	asked   bool              // the index was asked for, and answered
	index   map[string]listed // nil: there is none

	mu     sync.Mutex
	pieces map[digest.Digest][]piece // of blobs that are in pieces
}

// A listed layer is one of the index.
type listed struct {
	specs.Descriptor
	at int // its place in the index: what was completed last is last
}

// Bounds of what is read. What package dir writes is not larger.
const (
	maxIndex    = 16 << 20
	maxManifest = 16 << 20
	maxStep     = 4 << 20
	maxLayers   = 20_000
)

// atOnce is how many small files are asked for at the same time.
const atOnce = 16

// Parse returns the address of a store. Without TLS it is on this machine.
func Parse(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%s: no URL", transfer.Redact(s)) // the parser's error quotes it
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return nil, fmt.Errorf("%s: want https://HOST/PATH", transfer.Redact(s))
	case u.Scheme == "http" && !transfer.IsLoopback(u.Host):
		return nil, fmt.Errorf("%s: without TLS anybody on the way could change what is restored: use https", transfer.Redact(s))
	case u.User != nil:
		return nil, fmt.Errorf("%s: no user and password in a URL: put them in ~/.netrc, or a header in %s", transfer.Redact(s), HeaderVariable)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%s: no query and no fragment: want https://HOST/PATH", transfer.Redact(s))
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// New returns the store at an address of Parse. Nothing is asked of it yet.
func New(at *url.URL, opt Options) *Store {
	s := &Store{at: at, login: opt.Login, name: cmp.Or(opt.Name, "https"), temp: opt.Temp, pieces: make(map[digest.Digest][]piece)}
	opt.Transfer.Wrap = func(base http.RoundTripper) http.RoundTripper { return authorized{base, at, opt.Login} }
	s.tr = transfer.New(opt.Transfer)
	return s
}

// Name returns the name of Options.
func (s *Store) Name() string { return s.name }

// Location returns the address.
func (s *Store) Location() string { return s.at.String() }

// Writable returns cache.ErrReadOnly.
func (s *Store) Writable() error { return cache.ErrReadOnly }

// get reads a small file. ErrNotCached says that there is none.
func (s *Store) get(ctx context.Context, name string, max int) ([]byte, error) {
	if err := s.refused.Reading(); err != nil {
		return nil, err
	}
	b := transfer.Buffer{Max: max}
	_, err := s.tr.Get(ctx, s.at.JoinPath(name).String(), &b, transfer.GetOptions{})
	return b.Bytes(), s.explain(ctx, name, err)
}

// explain returns an error in words, and remembers what all further requests would get.
func (s *Store) explain(ctx context.Context, name string, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	var status *transfer.StatusError
	if errors.As(err, &status) && !status.Limited {
		hidden := name != specs.ImageIndexFile && status.Code == http.StatusForbidden
		switch {
		case status.Code == http.StatusNotFound, status.Code == http.StatusGone, hidden:
			return fmt.Errorf("%w: %s", cache.ErrNotCached, name)
		case status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden:
			err = &RefusedError{Code: status.Code, Host: cmp.Or(status.Host, s.at.Host), From: s.login.From, err: err}
			s.refused.Read(err, 0)
			return err
		}
	}
	if pause := transfer.Pause(err); pause > 0 {
		s.refused.Read(err, pause)
	}
	return err
}

// A RefusedError says that a server does not let the store be read.
type RefusedError struct {
	Code int    // the HTTP status
	Host string // that answered
	From string // where the login was found that was sent; "" for none
	err  error
}

// Error says what to do.
func (e *RefusedError) Error() string {
	if e.From != "" {
		return fmt.Sprintf("%s answers %d %s to the login of %s: check that it may read the store", e.Host, e.Code, http.StatusText(e.Code), e.From)
	}
	return fmt.Sprintf("%s answers %d %s without a login: put one in ~/.netrc, or a header in %s", e.Host, e.Code, http.StatusText(e.Code), HeaderVariable)
}

// Unwrap returns the answer.
func (e *RefusedError) Unwrap() error { return e.err }

// layers returns the images of the index by tag. It is asked for once. Without an index,
// there is no store, and they are nil.
func (s *Store) layers(ctx context.Context) (map[string]listed, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.asked {
		return s.index, nil
	}
	data, err := s.get(ctx, specs.ImageIndexFile, maxIndex)
	var file struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	switch {
	case errors.Is(err, cache.ErrNotCached):
		s.asked = true
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("%s/%s: no index of an OCI image layout: %w", s.at, specs.ImageIndexFile, err)
	}
	if len(file.Manifests) > maxLayers {
		return nil, fmt.Errorf("%s/%s: more than %d images", s.at, specs.ImageIndexFile, maxLayers)
	}
	s.asked, s.index = true, make(map[string]listed)
	for at, raw := range file.Manifests {
		var d specs.Descriptor
		if json.Unmarshal(raw, &d) != nil || !cache.ValidDigest(d.Digest) {
			continue // another tool's, of a kind that clayer does not know
		}
		if tag := d.Annotations[specs.AnnotationRefName]; strings.HasPrefix(tag, "layer-") {
			s.index[tag] = listed{d, at}
		}
	}
	return s.index, nil
}

func blobName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

// layer reads the manifest of a layer.
func (s *Store) layer(ctx context.Context, tag string, d digest.Digest) (m cache.Manifest, err error) {
	data, err := s.get(ctx, blobName(d), maxManifest)
	if err != nil {
		return m, err
	}
	var image specs.Manifest
	if digest.FromBytes(data) != d {
		err = errors.New("its bytes are not those of its digest")
	} else if err = json.Unmarshal(data, &image); err == nil {
		m, err = cache.FromImage(image)
	}
	if err == nil && m.Tag() != tag {
		err = fmt.Errorf("it is the layer %s", m.Tag())
	}
	if inPieces, ok := image.Annotations[piecesAnnotation]; ok && err == nil {
		var of map[digest.Digest][]piece
		err = json.Unmarshal([]byte(inPieces), &of)
		s.know(of)
	}
	if err != nil {
		return m, fmt.Errorf("%w: %s: %w", cache.ErrNotCached, tag, err)
	}
	return m, nil
}

// know notes which blobs are in pieces.
func (s *Store) know(of map[digest.Digest][]piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.pieces, of)
}

func stepName(k key.Key) string { return fmt.Sprintf("keys/%.2s/%s.json", k, k) }

// variantName returns the file of the n-th snapshot of a step, from 1.
func variantName(k key.Key, n int) string {
	if n == 1 {
		return stepName(k)
	}
	return fmt.Sprintf("keys/%.2s/%s.%d.json", k, k, n)
}

// step reads the n-th file of a step.
func (s *Store) step(ctx context.Context, k key.Key, n int) (cache.Descriptor, error) {
	var d step
	name := variantName(k, n)
	data, err := s.get(ctx, name, maxStep)
	if err != nil {
		return d.Descriptor, err
	}
	err = json.Unmarshal(data, &d)
	if err == nil && (d.Key != k || !cache.ValidDigest(d.Digest) || d.Size < 0) {
		err = errors.New("not the descriptor of its key")
	}
	if err != nil {
		return d.Descriptor, fmt.Errorf("%w: %s: %w", cache.ErrNotCached, name, err)
	}
	if d.Pieces != nil {
		s.know(map[digest.Digest][]piece{d.Digest: d.Pieces})
	}
	return d.Descriptor, nil
}

// Find asks for the index and for the layer's manifest. Steps that the layer lacks are
// looked for in the newest layer of the same name, and then by their keys.
func (s *Store) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	index, err := s.layers(ctx)
	if err != nil || index == nil {
		return nil, err
	}
	found := make(map[key.Key]cache.Found, len(keys))
	image, whole := index[tag]
	if !whole {
		tag, image, whole = nearest(index, tag)
	}
	if whole {
		m, err := s.layer(ctx, tag, image.Digest)
		if err != nil && !errors.Is(err, cache.ErrNotCached) {
			return nil, err
		}
		if err != nil {
			slog.Warn("a layer in the store can't be read; its steps are looked for one by one", "store", s.Location(), "err", err)
		}
		for _, d := range m.Steps {
			found[d.Key] = cache.Found{Descriptor: d, Store: s.name}
		}
	}
	err = cache.FindEach(ctx, s.name, found, keys, atOnce, func(ctx context.Context, k key.Key) (cache.Descriptor, error) {
		d, err := s.step(ctx, k, 1)
		if errors.Is(err, cache.ErrNotCached) {
			slog.Debug("not in the store", "store", s.Location(), "err", err)
		}
		return d, err
	})
	return found, err
}

// nearest returns the newest layer of the name that a tag has: an edit keeps most steps.
func nearest(index map[string]listed, tag string) (best string, image listed, ok bool) {
	cut := strings.LastIndexByte(tag, '-')
	for t, l := range index {
		if i := strings.LastIndexByte(t, '-'); i == cut && t[:i] == tag[:cut] && (!ok || l.at > image.at) {
			best, image, ok = t, l, true
		}
	}
	return best, image, ok
}

// Variants asks for the first and the further files of each key.
func (s *Store) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	found, err := s.Find(ctx, tag, keys)
	if err != nil || found == nil {
		return nil, err
	}
	type place struct{ key, number int }
	all := make(map[place]cache.Descriptor)
	var mu sync.Mutex
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for i, k := range keys {
		for n := 1; n <= cache.MaxVariants; n++ {
			eg.Go(func() error {
				d, err := s.step(gctx, k, n)
				if errors.Is(err, cache.ErrNotCached) {
					return nil
				}
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				all[place{i, n}] = d
				return nil
			})
		}
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	lists := make(map[key.Key][]cache.Found)
	for i, k := range keys {
		if f, ok := found[k]; ok {
			lists[k] = append(lists[k], f)
		}
		for n := 1; n <= cache.MaxVariants; n++ {
			d, ok := all[place{i, n}]
			if !ok || slices.ContainsFunc(lists[k], func(f cache.Found) bool { return f.Digest == d.Digest && f.VariantID() == d.VariantID() }) {
				continue
			}
			f := cache.Found{Descriptor: d, Store: s.name}
			if len(lists[k]) > 0 {
				f.Variant = max(n, 2)
			}
			lists[k] = append(lists[k], f)
		}
	}
	return lists, nil
}

// Fetch downloads a blob, several ranges of a large one at the same time where the
// server has ranges. It is complete, and not verified.
func (s *Store) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	if err := s.refused.Reading(); err != nil {
		return err
	}
	if !cache.ValidDigest(d.Digest) {
		return fmt.Errorf("%w: digest %q", cache.ErrNotCached, d.Digest)
	}
	s.mu.Lock()
	pieces, ok := s.pieces[d.Digest]
	s.mu.Unlock()
	if !ok {
		pieces = []piece{{d.Digest, d.Size}}
	}
	left := d.Size
	for _, p := range pieces {
		if !cache.ValidDigest(p.Digest) || p.Size <= 0 && ok || p.Size > left {
			return fmt.Errorf("%w: the pieces of %s make no sense", cache.ErrNotCached, d.Digest)
		}
		left -= p.Size
	}
	return b.Fill(s.temp, d, func(w cache.Writer) error {
		for _, p := range pieces {
			name := blobName(p.Digest)
			if err := s.tr.Download(ctx, s.at.JoinPath(name).String(), w, p.Size, transfer.GetOptions{}); err != nil {
				return s.explain(ctx, name, err)
			}
			w = w.From(p.Size)
		}
		return nil
	})
}

// List returns the complete layers, newest first. Those that can't be read are left out,
// with a warning.
func (s *Store) List(ctx context.Context) ([]cache.Manifest, error) {
	index, err := s.layers(ctx)
	if err != nil {
		return nil, err
	}
	tags := slices.Sorted(maps.Keys(index))
	all := make([]cache.Manifest, len(tags))
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for i, tag := range tags {
		eg.Go(func() error {
			m, err := s.layer(gctx, tag, index[tag].Digest)
			if errors.Is(err, cache.ErrNotCached) {
				slog.Warn("a layer in the store can't be read", "store", s.Location(), "err", err)
				return nil
			}
			all[i] = m
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(m cache.Manifest) bool { return m.Key.IsZero() })
	order.Stable(all, cache.NewestFirst)
	return all, nil
}

// Put returns cache.ErrReadOnly.
func (s *Store) Put(context.Context, cache.Descriptor, *cache.Blob) error { return cache.ErrReadOnly }

// Complete returns cache.ErrReadOnly.
func (s *Store) Complete(context.Context, cache.Manifest) error { return cache.ErrReadOnly }

// Interrupted returns nothing: steps that no layer has are not listed anywhere.
func (s *Store) Interrupted(context.Context) ([]cache.Manifest, error) { return nil, nil }

// Remove returns cache.ErrReadOnly.
func (s *Store) Remove(context.Context, []cache.Manifest) (int64, error) {
	return 0, cache.ErrReadOnly
}
