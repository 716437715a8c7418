package dir

import (
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/dag/key"
)

// A snapshot is found by its second key, with that as its key, and goes with the last layer
// that has it by either key.
func TestSecondKeys(t *testing.T) {
	s := open(t, Options{})
	d, blob := storetest.Step("a", "content")
	other, _ := storetest.Step("second", "")
	d.Cutoff = other.Key
	if err := s.Put(t.Context(), d, blob); err != nil {
		t.Fatal(err)
	}
	find := func(k key.Key) (cache.Found, bool) {
		t.Helper()
		found, err := s.Find(t.Context(), "", []key.Key{k})
		if err != nil {
			t.Fatal(err)
		}
		f, ok := found[k]
		return f, ok
	}
	if f, ok := find(d.Key); !ok || f.Key != d.Key || f.ByContent() {
		t.Errorf("by the first key: %v, %t", f, ok)
	}
	second, ok := find(d.Cutoff)
	if !ok || !second.ByContent() || second.Digest != d.Digest || second.DiffID != d.DiffID {
		t.Errorf("by the second key: %v, %t", second, ok)
	}
	if got := storetest.Read(t, s, second.Descriptor); got != "content" {
		t.Errorf("by the second key: %q", got)
	}
	first, edited := storetest.Layer("base", 1, d), storetest.Layer("edited", 2, second.Descriptor)
	for _, m := range []cache.Manifest{first, edited} {
		if err := s.Complete(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(m cache.Manifest) {
		t.Helper()
		if _, err := s.Remove(t.Context(), []cache.Manifest{m}); err != nil {
			t.Fatal(err)
		}
	}
	remove(first)
	if _, ok := find(d.Key); ok {
		t.Error("a layer is removed, and its step is there by the first key")
	}
	if got := storetest.Read(t, s, second.Descriptor); got != "content" {
		t.Errorf("the other layer has lost its step: %q", got)
	}
	remove(edited)
	if _, ok := find(d.Cutoff); ok {
		t.Error("all layers are removed, and the step is there by the second key")
	}
}
