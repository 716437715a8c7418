package solver

import (
	"bytes"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/lookup"
)

func graphOf(t *testing.T, text string) *dag.Graph {
	t.Helper()
	f, err := frontend.Parse("Containerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	g, err := dag.Build([]*frontend.File{f}, dag.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// An empty snapshot of an install that an older version has put into a store is a
// miss; that of any other RUN is a hit.
func TestFindPassesOverEmptyInstalls(t *testing.T) {
	store, err := dir.Open(t.TempDir(), dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g := graphOf(t, "RUN pip install numpy\nRUN true")
	keys, err := g.Keys(dag.Base{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range g.Steps() {
		var b bytes.Buffer
		packed, err := snapshot.Pack(t.Context(), &b, func(func(*snapshot.Entry, error) bool) {}, snapshot.PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		d := cache.Descriptor{Key: keys.Step[s], Layer: "base", Digest: packed.Digest, Size: packed.Size, DiffID: packed.DiffID}
		if err := store.Put(t.Context(), d, storetest.Blob(b.String())); err != nil {
			t.Fatal(err)
		}
	}
	tier := cache.Tiered(func(store string, err error) { t.Errorf("%s: %v", store, err) }, store)
	r := lookup.New(lookup.Options{Tier: tier, Jobs: 1, Unstored: func(*dag.Layer) bool { return false }})
	found, err := r.Find(t.Context(), g, keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true} {
		if _, ok := found[keys.Step[g.Steps()[i]]]; ok != want {
			t.Errorf("line %d is found: %t", i+1, ok)
		}
	}
}
