package lexical

import (
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Nearest returns the one of known that word was probably meant to be, and ""
// where none is near: at most a third of its letters differ, or, as in FECTH,
// they stand in another order.
func Nearest(word string, known []string) string {
	best, bestDist := "", 0
	for _, k := range known {
		limit := max(1, len(k)/3)
		d := levenshtein.Distance(strings.ToUpper(word), strings.ToUpper(k), nil)
		if d > limit && sortedLetters(word) != sortedLetters(k) {
			continue
		}
		if best == "" || d < bestDist {
			best, bestDist = k, d
		}
	}
	return best
}

func sortedLetters(s string) string {
	b := []byte(strings.ToUpper(s))
	slices.Sort(b)
	return string(b)
}

// DidYouMean words a suggestion; "" where there is none.
func DidYouMean(word string, known []string, prefix string) string {
	if word == "" || len(word) > 40 {
		return ""
	}
	if k := Nearest(word, known); k != "" {
		return "did you mean " + prefix + k + "?"
	}
	return ""
}
