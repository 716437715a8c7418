package oci

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	specsgo "github.com/opencontainers/image-spec/specs-go"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/registry"
)

func (s *Store) toWrite(ctx context.Context) context.Context {
	return auth.AppendRepositoryScope(ctx, s.ref, auth.ActionPull, auth.ActionPush)
}

// Put uploads a snapshot, unless the repository has it, and tags it by its key.
//
// Once the registry has refused (no login, no right, read-only, a limit), the
// error is returned to all that follow without asking again.
func (s *Store) Put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	if err := s.put(ctx, d, b); err != nil {
		return fmt.Errorf("built, not pushed: %w", s.refuse(err))
	}
	return nil
}

func (s *Store) put(ctx context.Context, d cache.Descriptor, blob io.ReaderAt) error {
	if d.Key.IsZero() {
		return errors.New("no key")
	}
	// What is not what it is said to be never leaves.
	if err := cache.Check(ctx, io.Discard, io.NewSectionReader(blob, 0, d.Size), d); err != nil {
		return err
	}
	if err := s.refused.Writing(); err != nil {
		return err
	}
	if s.knows(d) {
		return nil
	}
	p, err := s.place(ctx, d)
	if e := (*registry.Error)(nil); errors.As(err, &e) {
		e.Act = registry.Pushing // what was read is a part of that
	}
	if err != nil || len(p.tags) == 0 {
		return err
	}
	ctx = s.toWrite(ctx)
	layer := blobOf(d)
	if err := s.putBlob(ctx, layer, blob); err != nil {
		return err
	}
	s.mu.Lock()
	empty := s.empty
	s.mu.Unlock()
	if !empty {
		if err := s.putBlob(ctx, specs.DescriptorEmptyJSON, bytes.NewReader(specs.DescriptorEmptyJSON.Data)); err != nil {
			return err
		}
		s.mu.Lock()
		s.empty = true
		s.mu.Unlock()
	}
	ours, err := json.Marshal(d)
	if err != nil {
		return err
	}
	config := specs.DescriptorEmptyJSON
	config.Data = nil
	manifest := specs.Manifest{
		Versioned:    specsgo.Versioned{SchemaVersion: 2},
		MediaType:    specs.MediaTypeImageManifest,
		ArtifactType: stepType,
		Config:       config,
		Layers:       []specs.Descriptor{layer},
		Annotations:  map[string]string{stepAnnotation: string(ours), specs.AnnotationCreated: time.Now().UTC().Format(time.RFC3339)},
	}
	var desc specs.Descriptor
	for _, tag := range p.tags {
		if desc, err = s.putManifest(ctx, tag, manifest); err != nil {
			return err
		}
	}
	s.replace(ctx, p.gone, desc)
	s.know(d)
	return nil
}

// refuse remembers an error that all further writes would get too.
func (s *Store) refuse(err error) error {
	var e *registry.Error
	if errors.As(err, &e) && refusesWrites(e) {
		s.refused.Write(err, 0)
	} else if errors.As(err, &e) && e.Code == http.StatusTooManyRequests {
		s.refused.Write(err, cmp.Or(e.RetryAfter, time.Minute))
	}
	return err
}

// putBlob uploads a blob that the repository lacks. An upload that is cut off
// leaves nothing that could be taken for the blob, and is begun again.
func (s *Store) putBlob(ctx context.Context, desc specs.Descriptor, blob io.ReaderAt) error {
	return s.try(ctx, registry.Pushing, func(ctx context.Context) error {
		there, err := s.repo.Blobs().Exists(ctx, desc)
		if err != nil || there {
			return err
		}
		return s.repo.Blobs().Push(ctx, desc, io.NewSectionReader(blob, 0, desc.Size))
	})
}

func (s *Store) putManifest(ctx context.Context, tag string, m specs.Manifest) (specs.Descriptor, error) {
	data, desc, err := cache.JSON(m.MediaType, m)
	if err != nil {
		return desc, err
	}
	if len(data) > maxManifest {
		return desc, fmt.Errorf("the manifest of %s would have %d bytes; registries take no more than %d", tag, len(data), maxManifest)
	}
	return desc, s.try(ctx, registry.Pushing, func(ctx context.Context) error {
		return s.repo.Manifests().PushReference(ctx, desc, bytes.NewReader(data), tag)
	})
}

// Complete tags the layer as an image.
func (s *Store) Complete(ctx context.Context, m cache.Manifest) error {
	if err := s.complete(ctx, m); err != nil {
		return fmt.Errorf("complete %s: %w", m.Tag(), s.refuse(err))
	}
	return nil
}

func (s *Store) complete(ctx context.Context, m cache.Manifest) error {
	if err := s.refused.Writing(); err != nil {
		return err
	}
	if listed, _, err := s.readLayer(s.toRead(ctx), layerTag(m.Tag())); err == nil && m.Covers(listed) {
		return nil
	}
	ctx = s.toWrite(ctx)
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for _, d := range m.Steps {
		if s.knows(d) {
			continue
		}
		eg.Go(func() error {
			there, err := s.hasBlob(gctx, d)
			if err == nil && !there {
				err = fmt.Errorf("step %s: %w", d.Key.Short(), cache.ErrNotCached)
			}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	image, config, err := m.Image()
	if err != nil {
		return err
	}
	data, desc, err := cache.JSON(specs.MediaTypeImageConfig, config)
	if err != nil {
		return err
	}
	if err := s.putBlob(ctx, desc, bytes.NewReader(data)); err != nil {
		return err
	}
	_, err = s.putManifest(ctx, layerTag(m.Tag()), image)
	return err
}
