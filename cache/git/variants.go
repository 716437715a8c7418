package git

import (
	"context"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
)

// Variants returns what Find does, and what else the branch has: it has been fetched.
func (s *Store) Variants(ctx context.Context, tag string, keys []key.Key) (map[key.Key][]cache.Found, error) {
	found, err := s.Find(ctx, tag, keys)
	if err != nil {
		return nil, err
	}
	x, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[key.Key][]cache.Found, len(found))
	for _, k := range keys {
		if f, ok := found[k]; ok {
			all[k] = []cache.Found{f}
		}
		for _, st := range x.Variants(k) {
			if len(all[k]) == cache.MaxVariants || cache.Twin(st.Descriptor, all[k]) != "" {
				continue
			}
			f := cache.Found{Descriptor: st.Descriptor, Store: s.opt.Name}
			if n := len(all[k]); n > 0 {
				f.Variant = n + 1
			}
			all[k] = append(all[k], f)
		}
	}
	return all, nil
}
