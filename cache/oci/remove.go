package oci

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/registry"
)

// Remove deletes the manifests of layers, and of the steps that no other layer
// has; of what interrupted sessions left, when it is two weeks old. The layers
// go first: what is cut off leaves none that lacks a step.
//
// The registry frees the blobs when it collects garbage: what is returned is
// what it may free then. A registry need not allow deleting; the error says so.
func (s *Store) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	ctx = auth.AppendRepositoryScope(ctx, s.ref, auth.ActionPull, auth.ActionDelete)
	layerTags, stepTags, err := s.tags(ctx)
	if err != nil {
		return 0, err
	}
	layers, err := readAll(ctx, layerTags, s.readLayer)
	if err != nil {
		return 0, err
	}
	goes := make(map[string]bool)
	for _, m := range ms {
		goes[layerTag(m.Tag())] = true
	}
	otherSteps, otherBlobs := make(map[string]bool), make(map[digest.Digest]bool)
	mayGo := make(map[string]bool) // steps of what is removed
	for _, l := range layers {
		for _, d := range l.of.Steps {
			if goes[l.tag] {
				mayGo[stepTag(d.Key)] = true
			} else {
				otherSteps[stepTag(d.Key)], otherBlobs[d.Digest] = true, true
			}
		}
	}
	steps, err := readAll(ctx, slices.DeleteFunc(stepTags, func(t string) bool { return otherSteps[stepOf(t)] }), s.readStep)
	if err != nil {
		return 0, err
	}
	var remove []named[pushed]
	for _, st := range steps {
		if mayGo[stepOf(st.tag)] || time.Since(st.of.at) > abandoned {
			remove = append(remove, st)
		} else {
			otherBlobs[st.of.Digest] = true // an interrupted session may take it up
		}
	}
	// Of layers that are asked for, and of nothing else, old steps go too: a
	// call that names none that is there changes nothing.
	var freed int64
	blobs := make(map[digest.Digest]bool)
	count := func(d cache.Descriptor) {
		if !otherBlobs[d.Digest] && !blobs[d.Digest] {
			blobs[d.Digest] = true
			freed += d.Size
		}
	}
	any := false
	for _, l := range layers {
		if !goes[l.tag] {
			continue
		}
		any = true
		if err := s.delete(ctx, l.desc); err != nil {
			return 0, err
		}
		for _, d := range l.of.Steps {
			count(d)
		}
	}
	if !any {
		return 0, nil
	}
	for _, st := range remove {
		if err := s.delete(ctx, st.desc); err != nil {
			return freed, err
		}
		count(st.of.Descriptor)
		s.mu.Lock()
		delete(s.held, st.of.Key)
		s.mu.Unlock()
	}
	return freed, nil
}

func (s *Store) delete(ctx context.Context, desc specs.Descriptor) error {
	err := s.try(ctx, registry.Removing, func(ctx context.Context) error {
		err := s.repo.Manifests().Delete(ctx, desc)
		if errors.Is(err, errdef.ErrNotFound) {
			return nil // another session was faster
		}
		return err
	})
	return err
}
