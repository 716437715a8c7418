package order_test

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clayer/clayer/internal/order"
)

// TestStable compares with the standard library's sort, on elements many of which are equal.
func TestStable(t *testing.T) {
	type element struct{ key, number int }
	byKey := func(a, b element) int { return cmp.Compare(a.key, b.key) }
	rapid.Check(t, func(t *rapid.T) {
		var got []element
		for i, k := range rapid.SliceOf(rapid.IntRange(0, 5)).Draw(t, "keys") {
			got = append(got, element{k, i})
		}
		want := slices.Clone(got)
		slices.SortStableFunc(want, byKey)
		order.Stable(got, byKey)
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
