package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
)

// Variant returns a snapshot of a step that requires a package on the machine.
func Variant(name, content, requires string) (cache.Descriptor, *cache.Blob) {
	d, b := Step(name, content)
	d.Needs = []cache.Need{{Kind: snapshot.NeedPackage, Manager: snapshot.ManagerDpkg, Name: requires}}
	return d, b
}

// RunVariants runs the part of the suite about several snapshots of one step.
func RunVariants(t *testing.T, open func(t *testing.T) cache.Store) {
	t.Run("a snapshot with other needs is added", func(t *testing.T) {
		s := open(t)
		a, blobA := Variant("a", "for one", "libone")
		b, blobB := Variant("a", "for two", "libtwo")
		b.Created = b.Created.Add(time.Hour)
		after, blobAfter := Step("b", "on two")
		after.On = b.Digest
		put(t, s, a, blobA)
		put(t, s, b, blobB)
		put(t, s, after, blobAfter)
		if diff := cmp.Diff(a, find(t, s, a)[a.Key].Descriptor); diff != "" {
			t.Errorf("Find (-want +got):\n%s", diff)
		}
		hasVariants(t, s, a, b)
		hasVariants(t, s, after)
		for content, d := range map[string]cache.Descriptor{"for one": a, "for two": b, "on two": after} {
			if got := Read(t, s, d); got != content {
				t.Errorf("%q, want %q", got, content)
			}
		}
	})
	t.Run("one that was built on another is added", func(t *testing.T) {
		s := open(t)
		a, blobA := Step("a", "on one")
		b, blobB := Step("a", "on two")
		b.Created = b.Created.Add(time.Hour)
		_, one := Step("x", "one")
		_, two := Step("x", "two")
		a.On, b.On = one.Digest(), two.Digest()
		put(t, s, a, blobA)
		put(t, s, b, blobB)
		hasVariants(t, s, a, b)
	})
	t.Run("the same variant is stored once", func(t *testing.T) {
		s := open(t)
		a, blobA := Variant("a", "first", "lib")
		b, blobB := Variant("a", "second", "lib")
		b.Created = b.Created.Add(time.Hour)
		put(t, s, a, blobA)
		put(t, s, a, blobA)
		put(t, s, b, blobB)
		hasVariants(t, s, a)
		if got := Read(t, s, a); got != "first" {
			t.Errorf("%q", got)
		}
	})
	t.Run("the fifth takes the place of the oldest but for the first", func(t *testing.T) {
		s := open(t)
		all := many(t, 5)
		for _, v := range all {
			put(t, s, v.Descriptor, v.blob)
		}
		got := variants(t, s, all[0].Key)
		if len(got) != cache.MaxVariants || got[0].Digest != all[0].Digest {
			t.Fatalf("%d variants, want %d, with the first one first", len(got), cache.MaxVariants)
		}
		if !slices.ContainsFunc(got, func(f cache.Found) bool { return f.Digest == all[4].Digest }) {
			t.Error("the newest is not there")
		}
		if slices.ContainsFunc(got, func(f cache.Found) bool { return f.Digest == all[1].Digest }) {
			t.Error("the oldest is there")
		}
	})
	t.Run("what was built again replaces", func(t *testing.T) {
		s := open(t)
		a, blobA := Variant("a", "first", "lib")
		b, blobB := Variant("a", "second", "lib")
		b.Created = b.Created.Add(time.Hour)
		put(t, s, a, blobA)
		complete(t, s, Layer("base", 1, a))
		b.Replaces = cache.AllVariants
		put(t, s, b, blobB)
		complete(t, s, Layer("base", 2, b))
		if got := find(t, s, a)[a.Key]; got.Digest != b.Digest || Read(t, s, b) != "second" {
			t.Errorf("found %s, want the second", got.Digest)
		}
		c, blobC := Variant("a", "third", "lib")
		c.Replaces = b.Digest
		put(t, s, c, blobC)
		complete(t, s, Layer("base", 3, c))
		if got := find(t, s, a)[a.Key]; got.Digest != c.Digest || Read(t, s, c) != "third" {
			t.Errorf("found %s, want the third", got.Digest)
		}
	})
	t.Run("a layer names one variant of each step, and has all", func(t *testing.T) {
		s := open(t)
		a, blobA := Variant("a", "for one", "libone")
		b, blobB := Variant("a", "for two", "libtwo")
		b.Created = b.Created.Add(time.Hour)
		put(t, s, a, blobA)
		complete(t, s, Layer("base", 1, a))
		put(t, s, b, blobB)
		complete(t, s, Layer("base", 2, b))
		list, err := s.List(t.Context())
		if !listed(err) {
			hasVariants(t, s, a, b)
			return
		}
		if err != nil || len(list) != 1 || list[0].Steps[0].Digest != a.Digest {
			t.Fatalf("List: %v, %v, want the first", list, err)
		}
		hasVariants(t, s, a, b)
		if _, _, err := cache.Prune(t.Context(), s, 1, 0, false); err != nil {
			t.Fatal(err)
		}
		hasVariants(t, s, a, b)
		remove(t, s, Layer("base", 1, a))
		if got := variants(t, s, a.Key); len(got) != 0 {
			t.Errorf("%d variants are left of a layer that was removed", len(got))
		}
	})
	t.Run("variants at the same time", func(t *testing.T) {
		s := open(t)
		all := many(t, cache.MaxVariants)
		var wg sync.WaitGroup
		for i := range 3 * len(all) {
			v := all[i%len(all)]
			wg.Go(func() {
				if err := s.Put(context.Background(), v.Descriptor, v.blob); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got := variants(t, s, all[0].Key)
		for _, v := range all {
			n := 0
			for _, f := range got {
				if f.Digest == v.Digest {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d of %s, want 1", n, v.Needs[0].Name)
			}
			Read(t, s, v.Descriptor)
		}
	})
	t.Run("a layer is copied with all variants", func(t *testing.T) {
		from, to := open(t), open(t)
		a, blobA := Variant("a", "for one", "libone")
		b, blobB := Variant("a", "for two", "libtwo")
		b.Created = b.Created.Add(time.Hour)
		put(t, from, a, blobA)
		put(t, from, b, blobB)
		complete(t, from, Layer("base", 1, a))
		for _, want := range []int{1, 0} {
			if c, err := cache.Copy(t.Context(), from, to, Layer("base", 1, a)); err != nil || c.Steps != want || c.Variants != want {
				t.Errorf("Copy: %d steps, %d variants, %v, want %d of each", c.Steps, c.Variants, err, want)
			}
		}
		hasVariants(t, to, a, b)
	})
}

type variant struct {
	cache.Descriptor
	blob *cache.Blob
}

// many returns variants of one step, the oldest first.
func many(t *testing.T, n int) (all []variant) {
	t.Helper()
	for i := range n {
		d, b := Variant("a", fmt.Sprint("content ", i), fmt.Sprint("lib", i))
		d.Created = d.Created.AddDate(0, 0, i)
		all = append(all, variant{d, b})
	}
	return all
}

func variants(t *testing.T, s cache.Store, k key.Key) []cache.Found {
	t.Helper()
	found, err := s.Variants(t.Context(), cache.Tag("base", k), []key.Key{k})
	if err != nil {
		t.Fatal(err)
	}
	return found[k]
}

// hasVariants checks what a store has under a key, the first first.
func hasVariants(t *testing.T, s cache.Store, want ...cache.Descriptor) {
	t.Helper()
	var got []cache.Descriptor
	for i, f := range variants(t, s, want[0].Key) {
		got = append(got, f.Descriptor)
		if f.Store != s.Name() || i == 0 && f.Variant != 0 || i > 0 && f.Variant < 2 {
			t.Errorf("the %d. is number %d in %s", i+1, f.Variant, f.Store)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Variants (-want +got):\n%s", diff)
	}
}
