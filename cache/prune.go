package cache

import (
	"context"
	"time"
)

// Prune removes layers: of each name the newest, as many as retain says, stay, and all
// that are younger than olderThan (0: age does not matter). Blobs that a layer which
// stays needs stay too. It returns the layers that were removed, or would be
// under dryRun, and how many bytes that freed.
func Prune(ctx context.Context, s Store, retain int, olderThan time.Duration, dryRun bool) ([]Manifest, int64, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	var remove []Manifest
	retained := make(map[string]int)
	for _, m := range all { // newest first
		if retained[m.Name] < retain || olderThan > 0 && time.Since(m.Created) < olderThan {
			retained[m.Name]++
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
