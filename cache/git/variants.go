package git

import (
	"context"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/branch"
	"github.com/clayer/clayer/dag/key"
)

// variants returns the snapshots of a key, the first first.
func (x *index) variants(k key.Key) (all []*stored) {
	for _, name := range branch.StepPaths(k) {
		if st, ok := x.stored(name, k); ok {
			all = append(all, st)
		}
	}
	return all
}

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
		for _, st := range x.variants(k) {
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

func (x *index) shelf(k key.Key) *branch.Shelf {
	sh := new(branch.Shelf)
	for _, st := range x.variants(k) {
		sh.Snapshots, sh.Paths = append(sh.Snapshots, st.Descriptor), append(sh.Paths, st.name)
	}
	return sh
}
