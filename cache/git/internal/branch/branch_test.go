package branch_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/branch"
	"github.com/clayer/clayer/cache/storetest"
)

// TestShelf puts snapshots onto a shelf: each is its needs, and what it replaces.
func TestShelf(t *testing.T) {
	tests := []struct {
		name, puts string
		want       string // the needs of the snapshots that are there, by the numbers of their files
	}{
		{"one", "a", "1a"},
		{"others are added", "a b c", "1a 2b 3c"},
		{"one that is there stays", "a b b a", "1a 2b"},
		{"the oldest goes, but for the first", "a b c d e", "1a 2e 3c 4d"},
		{"all are replaced", "a b c/*", "1c"},
		{"what is there takes the place of all", "a b a/*", "1a"},
		{"one is replaced", "a b c/b", "1a 2c"},
		{"one that is not there is not replaced", "a b c/d", "1a 2b 3c"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s branch.Shelf
			made := make(map[string]cache.Descriptor)
			files := make(map[string]string)
			for i, put := range strings.Fields(tt.puts) {
				needs, replaces, _ := strings.Cut(put, "/")
				d, _ := storetest.Variant("a", needs, needs)
				d.Created = d.Created.Add(time.Duration(i) * time.Hour)
				made[needs] = d
				switch replaces {
				case "":
				case "*":
					d.Replaces = cache.AllVariants
				default:
					d.Replaces = made[replaces].Digest
				}
				name, gone, stores := s.Put(d)
				for _, name := range gone {
					delete(files, name)
				}
				if stores {
					files[name] = needs
				} else if files[name] != needs {
					t.Errorf("%s: %s stays, which has %q", put, name, files[name])
				}
			}
			var got []string
			for i, name := range branch.StepPaths(made["a"].Key) {
				if k, ok := branch.KeyOf(name); !ok || k != made["a"].Key {
					t.Errorf("%s is of %s, %t", name, k, ok)
				}
				if files[name] != "" {
					got = append(got, string(rune('1'+i))+files[name])
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("has %v, want %s", got, tt.want)
			}
			for i, name := range s.Paths {
				if files[name] != s.Snapshots[i].Needs[0].Name {
					t.Errorf("%s: %q on the branch, %q on the shelf", name, files[name], s.Snapshots[i].Needs[0].Name)
				}
			}
			inOrder := slices.DeleteFunc(branch.StepPaths(made["a"].Key), func(name string) bool { return !slices.Contains(s.Paths, name) })
			if !slices.Equal(s.Paths, inOrder) {
				t.Errorf("paths %v, want %v", s.Paths, inOrder)
			}
		})
	}
}
