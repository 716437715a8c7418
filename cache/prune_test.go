package cache_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
)

// shelf is a store of manifests alone.
type shelf struct {
	cache.Store
	list    []cache.Manifest
	removed []cache.Manifest
}

func (s *shelf) List(context.Context) ([]cache.Manifest, error) { return s.list, nil }
func (s *shelf) Remove(_ context.Context, ms []cache.Manifest) (int64, error) {
	s.removed = append(s.removed, ms...)
	return int64(len(ms)), nil
}

func TestPrune(t *testing.T) {
	s := &shelf{}
	for _, l := range []struct {
		name string
		days int // of age
	}{{"base", 1}, {"", 2}, {"mojo", 3}, {"base", 5}, {"base", 9}, {"", 10}, {"mojo", 30}} {
		step, _ := storetest.Step(fmt.Sprint(l.name, l.days), "content")
		m := storetest.Layer(l.name, 0, step)
		m.Created = time.Now().Add(-time.Duration(l.days)*24*time.Hour - time.Hour)
		s.list = append(s.list, m)
	}
	day := 24 * time.Hour
	tests := []struct {
		name  string
		stay  int
		older time.Duration
		want  string // names and ages
	}{
		{"the newest of each name stays", 1, 0, "base5 base9 10 mojo30"},
		{"two of each stay", 2, 0, "base9"},
		{"none stays", 0, 0, "base1 2 mojo3 base5 base9 10 mojo30"},
		{"what is young stays beyond the number", 1, 7 * day, "base9 10 mojo30"},
		{"the newest stays, however old", 1, 2 * day, "base5 base9 10 mojo30"},
		{"by age alone", 0, 7 * day, "base9 10 mojo30"},
		{"all are young", 0, 100 * day, ""},
	}
	for _, tt := range tests {
		for _, dry := range []bool{false, true} {
			s.removed = nil
			removed, freed, err := cache.Prune(t.Context(), s, tt.stay, tt.older, dry)
			var got []string
			for _, m := range removed {
				got = append(got, fmt.Sprint(m.Name, int(time.Since(m.Created)/day)))
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("%s: removed %v, %v; want %s", tt.name, got, err, tt.want)
			}
			if dry && (len(s.removed) > 0 || freed > 0) {
				t.Errorf("%s: a dry run removed %d", tt.name, len(s.removed))
			}
			if !dry && !slices.EqualFunc(s.removed, removed, func(a, b cache.Manifest) bool { return a.Key == b.Key }) {
				t.Errorf("%s: the store removed others than were told", tt.name)
			}
		}
	}
}
