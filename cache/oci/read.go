package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
)

// maxManifest bounds what is read of a manifest; registries take no larger ones.
const maxManifest = 4 << 20

func (s *Store) toRead(ctx context.Context) context.Context {
	return auth.AppendRepositoryScope(ctx, s.ref, auth.ActionPull)
}

// manifest reads the manifest of a tag, and returns what names it. ErrNotCached
// says that there is none.
func (s *Store) manifest(ctx context.Context, tag string) (m specs.Manifest, desc specs.Descriptor, err error) {
	var data []byte
	err = s.try(ctx, registry.Reading, func(ctx context.Context) error {
		var rc io.ReadCloser
		var err error
		if desc, rc, err = s.repo.Manifests().FetchReference(ctx, tag); err != nil {
			return err
		}
		defer rc.Close()
		if desc.Size > maxManifest {
			return transfer.Fatal(fmt.Errorf("the manifest of %s has %d bytes", tag, desc.Size))
		}
		data, err = content.ReadAll(rc, desc)
		return err
	})
	if err != nil {
		return m, desc, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, desc, fmt.Errorf("the manifest of %s: %w", tag, err)
	}
	return m, desc, nil
}

// readLayer reads the manifest of a layer.
func (s *Store) readLayer(ctx context.Context, tag string) (cache.Manifest, specs.Descriptor, error) {
	image, desc, err := s.manifest(ctx, tag)
	if err != nil {
		return cache.Manifest{}, desc, err
	}
	m, err := cache.FromImage(image)
	if err == nil && layerTag(m.Tag()) != tag {
		err = errors.New("not the layer of its tag")
	}
	if err != nil {
		return m, desc, fmt.Errorf("%w: %s: %w", cache.ErrNotCached, tag, err)
	}
	return m, desc, nil
}

// A pushed step is one in the registry.
type pushed struct {
	cache.Descriptor
	at time.Time // by the clock of the machine that pushed it; zero where that is not known
}

// readStep reads the manifest of a step.
func (s *Store) readStep(ctx context.Context, tag string) (pushed, specs.Descriptor, error) {
	var d pushed
	image, desc, err := s.manifest(ctx, tag)
	if err != nil {
		return d, desc, err
	}
	err = json.Unmarshal([]byte(image.Annotations[stepAnnotation]), &d.Descriptor)
	if err == nil && (stepTag(d.Key) != tag && variantTag(d.Descriptor) != tag || len(image.Layers) != 1 || !d.IsOf(image.Layers[0])) {
		err = errors.New("not the step of its tag")
	}
	if err != nil {
		return d, desc, fmt.Errorf("%w: %s: %w", cache.ErrNotCached, tag, err)
	}
	if at, err := time.Parse(time.RFC3339, image.Annotations[specs.AnnotationCreated]); err == nil {
		d.at = at
	}
	return d, desc, nil
}

// Find asks for the layer's manifest, which is all of a whole hit, and for each
// step that it lacks.
func (s *Store) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	if err := s.refused.Reading(); err != nil {
		return nil, err
	}
	ctx = s.toRead(ctx)
	found := make(map[key.Key]cache.Found)
	if strings.HasPrefix(tag, layerPrefix) {
		m, _, err := s.readLayer(ctx, layerTag(tag))
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
		d, _, err := s.readStep(ctx, stepTag(k))
		return d.Descriptor, err
	})
	for _, d := range found {
		s.know(d.Descriptor)
	}
	return found, err
}

// Fetch downloads a blob: several ranges of a large one at the same time. It is complete,
// and not verified.
func (s *Store) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	if err := s.refused.Reading(); err != nil {
		return err
	}
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: %w", cache.ErrNotCached, err)
	}
	ctx = s.toRead(ctx)
	url := s.client.BlobURL(d.Digest.String())
	return b.Fill(s.temp, d, func(w cache.Writer) error {
		err := s.tr.Download(ctx, url, w, d.Size, transfer.GetOptions{})
		var status *transfer.StatusError
		if errors.As(err, &status) && status.Code == http.StatusNotFound {
			s.forget(d.Digest)
			return fmt.Errorf("%w: %s", cache.ErrNotCached, d.Digest)
		}
		return s.explain(ctx, registry.Reading, err)
	})
}

// tags returns the tags of layers, and those of steps and their variants. A repository that is not there
// has none.
func (s *Store) tags(ctx context.Context) (layers, steps []string, err error) {
	if err := s.refused.Reading(); err != nil {
		return nil, nil, err
	}
	err = s.try(ctx, registry.Reading, func(ctx context.Context) error {
		layers, steps = nil, nil
		err := s.repo.Tags(ctx, "", func(tags []string) error {
			for _, t := range tags {
				switch {
				case strings.HasPrefix(t, layerPrefix):
					layers = append(layers, t)
				case strings.HasPrefix(t, stepPrefix), strings.HasPrefix(t, variantPrefix):
					steps = append(steps, t)
				}
			}
			return nil
		})
		var resp *errcode.ErrorResponse
		if errors.As(err, &resp) && resp.StatusCode == http.StatusNotFound || errors.Is(err, errdef.ErrNotFound) {
			return nil
		}
		return err
	})
	return layers, steps, err
}

// A named is a manifest in the registry, and what was read of it.
type named[T any] struct {
	tag  string
	desc specs.Descriptor
	of   T
}

// readAll reads the manifests of tags, several at a time. One that is not there
// any more, or makes no sense, is left out.
func readAll[T any](ctx context.Context, tags []string, read func(context.Context, string) (T, specs.Descriptor, error)) ([]named[T], error) {
	all := make([]*named[T], len(tags))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for i, tag := range tags {
		eg.Go(func() error {
			v, desc, err := read(ctx, tag)
			if errors.Is(err, cache.ErrNotCached) {
				slog.Debug("a tag of the registry is none of ours, or gone", "tag", tag, "err", err)
				return nil
			}
			all[i] = &named[T]{tag, desc, v}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	var list []named[T]
	for _, v := range all {
		if v != nil {
			list = append(list, *v)
		}
	}
	return list, nil
}

// List returns the complete layers, newest first.
func (s *Store) List(ctx context.Context) ([]cache.Manifest, error) {
	ctx = s.toRead(ctx)
	tags, _, err := s.tags(ctx)
	if err != nil {
		return nil, err
	}
	layers, err := readAll(ctx, tags, s.readLayer)
	if err != nil {
		return nil, err
	}
	var list []cache.Manifest
	for _, l := range layers {
		list = append(list, l.of)
	}
	order.Stable(list, cache.NewestFirst)
	return list, nil
}

// Interrupted returns the steps that no layer has, by the name of the layer
// that they were made for.
func (s *Store) Interrupted(ctx context.Context) ([]cache.Manifest, error) {
	ctx = s.toRead(ctx)
	layers, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	used := make(map[string]bool)
	for _, m := range layers {
		for _, d := range m.Steps {
			used[stepTag(d.Key)] = true
		}
	}
	_, tags, err := s.tags(ctx)
	if err != nil {
		return nil, err
	}
	steps, err := readAll(ctx, slices.DeleteFunc(tags, func(t string) bool { return used[t] || stepOf(t) != t }), s.readStep)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*cache.Manifest)
	order.Stable(steps, func(a, b named[pushed]) int { return a.of.Created.Compare(b.of.Created) })
	var names []string
	for _, st := range steps {
		m := byName[st.of.Layer]
		if m == nil {
			m = &cache.Manifest{Name: st.of.Layer}
			byName[st.of.Layer] = m
			names = append(names, st.of.Layer)
		}
		m.Steps = append(m.Steps, st.of.Descriptor)
		m.Key, m.Created = st.of.Key, st.of.Created
	}
	var list []cache.Manifest
	for _, name := range names {
		list = append(list, *byName[name])
	}
	return list, nil
}
