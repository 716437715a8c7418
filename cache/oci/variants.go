package oci

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/registry"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/order"
)

// maxVariantTags bounds how many tags of one key are read: others may write some, and where
// nothing can be deleted, old ones stay.
const maxVariantTags = 4 * cache.MaxVariants

// variantTag returns the tag of one of the snapshots of a key. It says which one: two
// sessions that push two of them at once do not want the same tag.
func variantTag(d cache.Descriptor) string {
	return variantPrefix + d.Key.String() + "." + d.VariantID()
}

// stepOf returns the tag of the step that a tag is about.
func stepOf(tag string) string {
	if rest, ok := strings.CutPrefix(tag, variantPrefix); ok {
		k, _, _ := strings.Cut(rest, ".")
		return stepPrefix + k
	}
	return tag
}

// Variants lists the tags of variants, which is one request in most cases, and reads those
// of the keys.
func (s *Store) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	found, err := s.Find(ctx, tag, keys)
	if err != nil {
		return nil, err
	}
	all := make(map[key.Key][]cache.Found)
	for k, f := range found {
		all[k] = []cache.Found{f}
	}
	steps, err := s.readVariants(ctx, keys)
	for _, st := range steps {
		k := st.of.Key
		if slices.ContainsFunc(all[k], func(f cache.Found) bool { return f.Digest == st.of.Digest && f.VariantID() == st.of.VariantID() }) {
			continue
		}
		if len(all[k]) < cache.MaxVariants {
			f := cache.Found{Descriptor: st.of.Descriptor, Store: s.name}
			if n := len(all[k]); n > 0 {
				f.Variant = n + 1
			}
			all[k] = append(all[k], f)
			s.know(st.of.Descriptor)
		}
	}
	return all, err
}

// readVariants reads all snapshots of keys: of each the first, and then the others, the
// newest first.
func (s *Store) readVariants(ctx context.Context, keys []key.Key) ([]named[pushed], error) {
	ctx = s.toRead(ctx)
	var tags []string
	count := make(map[string]int)
	want := make(map[string]bool)
	for _, k := range keys {
		want[stepTag(k)] = true
		tags = append(tags, stepTag(k))
	}
	variants, err := s.variantTags(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range variants {
		if of := stepOf(t); want[of] && count[of] < maxVariantTags {
			count[of]++
			tags = append(tags, t)
		}
	}
	steps, err := readAll(ctx, tags, s.readStep)
	order.Stable(steps, func(a, b named[pushed]) int {
		isFirst := func(st named[pushed]) int {
			if st.tag == stepOf(st.tag) {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(isFirst(a), isFirst(b)), b.of.Created.Compare(a.of.Created))
	})
	return steps, err
}

// variantTags lists the tags of variants. Tags are listed in order, so that what is before
// them is not asked for, nor what is after them; a registry that lists them otherwise has
// some that are not found, or sends all.
func (s *Store) variantTags(ctx context.Context) (variants []string, err error) {
	if err := s.refused.Reading(); err != nil {
		return nil, err
	}
	errAfter := errors.New("what follows is no variant")
	err = s.try(ctx, registry.Reading, func(ctx context.Context) error {
		variants = nil
		err := s.repo.Tags(ctx, variantPrefix, func(tags []string) error {
			after := false
			for _, t := range tags {
				if strings.HasPrefix(t, variantPrefix) {
					variants = append(variants, t)
				}
				after = after || t > variantPrefix+"~"
			}
			if after {
				return errAfter
			}
			return nil
		})
		var resp *errcode.ErrorResponse
		if errors.Is(err, errAfter) || errors.As(err, &resp) && resp.StatusCode == http.StatusNotFound || errors.Is(err, errdef.ErrNotFound) {
			return nil
		}
		return err
	})
	return variants, err
}

// A placing is what a Put has to do.
type placing struct {
	tags []string           // that the snapshot gets; none: it is not stored
	gone []specs.Descriptor // manifests that it takes the place of
}

// place finds out what there is of a step. Of most there is nothing, or the first snapshot is
// of the same variant.
func (s *Store) place(ctx context.Context, d cache.Descriptor) (p placing, err error) {
	first, desc, err := s.readStep(s.toRead(ctx), stepTag(d.Key))
	if err != nil && !errors.Is(err, cache.ErrNotCached) {
		return p, err
	}
	p.tags = []string{variantTag(d), stepTag(d.Key)} // the step's last: nothing is lost if another session writes it too
	if err != nil {
		return p, nil
	}
	steps := []named[pushed]{{stepTag(d.Key), desc, first}}
	if first.VariantID() != d.VariantID() || d.Replaces != "" {
		if steps, err = s.readVariants(ctx, []key.Key{d.Key}); err != nil || len(steps) == 0 {
			return p, err
		}
	}
	var there cache.Variants
	var at []specs.Descriptor
	for _, st := range steps {
		if !slices.ContainsFunc(there, func(o cache.Descriptor) bool { return o.Digest == st.of.Digest && o.VariantID() == st.of.VariantID() }) {
			there, at = append(there, st.of.Descriptor), append(at, st.desc)
		}
	}
	over := max(len(there)-cache.MaxVariants, 0) // where nothing can be deleted
	i, stores := there[:len(there)-over].Place(d)
	switch {
	case !stores:
		ok, err := s.hasBlob(ctx, there[i])
		if err != nil || ok {
			return placing{}, err
		}
	case i < len(there)-over && there[i].Digest != d.Digest:
		p.gone = at[i : i+1]
	}
	if d.Replaces == cache.AllVariants {
		p.gone = at
	} else if i > 0 {
		p.tags = []string{variantTag(d)} // the first stays
	}
	return p, nil
}

func (s *Store) hasBlob(ctx context.Context, d cache.Descriptor) (there bool, err error) {
	err = s.try(s.toRead(ctx), registry.Reading, func(ctx context.Context) (err error) {
		there, err = s.repo.Blobs().Exists(ctx, blobOf(d))
		return err
	})
	return there, err
}

// replace deletes manifests that a snapshot took the place of. Not every registry allows
// that; then they stay, and are of use to the machines that they are for.
func (s *Store) replace(ctx context.Context, gone []specs.Descriptor, now specs.Descriptor) {
	ctx = auth.AppendRepositoryScope(ctx, s.ref, auth.ActionPull, auth.ActionDelete)
	for _, desc := range gone {
		if desc.Digest == now.Digest {
			continue
		}
		if err := s.delete(ctx, desc); err != nil {
			slog.Debug("a snapshot that was replaced stays", "err", err)
			return
		}
	}
}
