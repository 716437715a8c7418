package versions

import (
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

var semver = lazyregexp.New(`^[v=\s]*([0-9]+|[xX*])(?:\.([0-9]+|[xX*]))?(?:\.([0-9]+|[xX*]))?(?:-([0-9A-Za-z.-]+))?(?:\+.*)?$`)

// A semverKey is a version of which given numbers are there; -1 for the others.
type semverKey struct {
	numbers [3]int
	given   int
	pre     bool
}

func parseSemver(text string) (k semverKey, ok bool) {
	m := semver().FindStringSubmatch(text)
	if m == nil {
		return k, false
	}
	for i := range 3 {
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			break
		}
		k.numbers[i], k.given = n, i+1
	}
	k.pre = m[4] != ""
	return k, true
}

// NPM reports whether a version is in a range, as "^18.2 || ^19". What cannot be
// read, such as a tag or URL, is taken as satisfied.
func NPM(version, want string) bool {
	v, ok := parseSemver(version)
	if !ok {
		return true
	}
	for part := range strings.SplitSeq(want, "||") {
		if satisfiesAll(v, part) {
			return true
		}
	}
	return false
}

func satisfiesAll(v semverKey, part string) bool {
	part = strings.TrimSpace(part)
	if low, high, ok := strings.Cut(part, " - "); ok {
		part = ">=" + strings.TrimSpace(low) + " <=" + strings.TrimSpace(high)
	}
	for _, op := range []string{">=", "<=", ">", "<", "=", "^", "~"} {
		part = strings.ReplaceAll(part, op+" ", op)
	}
	for word := range strings.FieldsSeq(part) {
		if !satisfiesOne(v, word) {
			return false
		}
	}
	return true
}

func satisfiesOne(v semverKey, word string) bool {
	op := word[:len(word)-len(strings.TrimLeft(word, "<>=^~"))]
	w, ok := parseSemver(word[len(op):])
	if !ok || w.given == 0 {
		return true
	}
	c := slices.Compare(v.numbers[:], w.numbers[:])
	same := func(n int) bool { return slices.Equal(v.numbers[:n], w.numbers[:n]) }
	switch op {
	case ">=":
		return c >= 0
	case ">":
		return c > 0 && !same(w.given)
	case "<":
		return c < 0
	case "<=":
		return c <= 0 || same(w.given)
	case "^":
		n := 1 // the first number that is not 0 stays
		for n < w.given && w.numbers[n-1] == 0 {
			n++
		}
		return c >= 0 && same(n)
	case "~":
		return c >= 0 && same(min(2, w.given))
	}
	return same(w.given)
}
