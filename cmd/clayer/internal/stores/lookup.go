package stores

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/dag/key"
)

// Lookup returns, for each word, the layers that it names, newest first.
func Lookup(all []cache.Manifest, words []string) (found [][]cache.Manifest, err error) {
	var unknown []error
	for _, w := range words {
		ms := Layers(all, []string{w})
		if len(ms) == 0 {
			unknown = append(unknown, fmt.Errorf("%s: no such layer is cached; see clayer cache ls", w))
		}
		found = append(found, ms)
	}
	if len(unknown) > 0 {
		return nil, usage.Error{Err: errors.Join(unknown...)}
	}
	return found, nil
}

// Layers returns the layers that one of the words names: by name, by tag, or by the
// key or its beginning. No words name all. Cache mounts are none.
func Layers(all []cache.Manifest, words []string) []cache.Manifest {
	return slices.DeleteFunc(slices.Clone(all), func(m cache.Manifest) bool {
		return m.IsMount() || len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool {
			return w == m.Name && w != "" || w == m.Tag() || len(w) >= 8 && strings.HasPrefix(m.Key.String(), w)
		})
	})
}

// Listed returns the layers of a store that one of the words names: those that are complete,
// and those whose build was interrupted.
func Listed(ctx context.Context, store cache.Store, words []string) (complete, partial []cache.Manifest, err error) {
	if complete, err = store.List(ctx); err != nil {
		return nil, nil, err
	}
	if partial, err = store.Interrupted(ctx); err != nil {
		return nil, nil, err
	}
	return Layers(complete, words), Layers(partial, words), nil
}

// Variants returns the further snapshots that a store has of the steps of layers, by tag.
func Variants(ctx context.Context, store cache.Store, layers []cache.Manifest) (map[string][]cache.Descriptor, error) {
	all := make(map[string][]cache.Descriptor)
	for _, m := range layers {
		keys := make([]key.Key, len(m.Steps))
		for i, d := range m.Steps {
			keys[i] = d.Key
		}
		found, err := store.Variants(ctx, m.Tag(), keys)
		if err != nil {
			return nil, err
		}
		for _, d := range m.Steps {
			for _, f := range found[d.Key] {
				if f.VariantID() != d.VariantID() {
					all[m.Tag()] = append(all[m.Tag()], f.Descriptor)
				}
			}
			delete(found, d.Key)
		}
	}
	return all, nil
}

// Newest returns the layers that the words name; without words, the newest of each name.
// all is in the order of Store.List.
func Newest(all []cache.Manifest, words []string) []cache.Manifest {
	names := make(map[string]bool)
	return slices.DeleteFunc(Layers(all, words), func(m cache.Manifest) bool {
		older := len(words) == 0 && names[m.Name]
		names[m.Name] = true
		return older
	})
}
