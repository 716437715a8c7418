// Package order sorts what is short without making the program larger.
//
// The compiler makes a copy of slices.SortFunc for every element type: 15 kB for a
// struct, and the program sorts some forty types. Slices of pointers and of strings
// share one copy each, so they, and what is long, are sorted by package slices.
package order

import "sort"

// Stable sorts s by compare, which returns a negative number where a comes before b.
// Elements that compare as equal keep their order.
func Stable[S ~[]E, E any](s S, compare func(a, b E) int) {
	sort.SliceStable(s, func(i, j int) bool { return compare(s[i], s[j]) < 0 })
}
