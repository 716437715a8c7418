package cache

import (
	"context"
	"time"
)

// Prune removes layers: of each name the newest keep stay, and all that are
// younger than olderThan (0: age does not matter). Blobs that a layer which
// stays needs are kept. It returns the layers that were removed, or would be
// under dryRun, and how many bytes that freed.
func Prune(ctx context.Context, s Store, keep int, olderThan time.Duration, dryRun bool) ([]Manifest, int64, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	var remove []Manifest
	kept := make(map[string]int)
	for _, m := range all { // newest first
		if kept[m.Name] < keep || olderThan > 0 && time.Since(m.Created) < olderThan {
			kept[m.Name]++
			continue
		}
		remove = append(remove, m)
	}
	if dryRun || len(remove) == 0 {
		return remove, 0, nil
	}
	freed, err := s.Remove(ctx, remove)
	return remove, freed, err
}
