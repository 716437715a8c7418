package versions

import "strings"

// Debian reports whether a version is in the relation to another that op names, as
// deb-version(7) orders them: "<<", "<=", "=", ">=" or ">>".
func Debian(version, op, want string) bool {
	c := debianOrder(version, want)
	switch op {
	case "<<":
		return c < 0
	case "<=", "<":
		return c <= 0
	case "=":
		return c == 0
	case ">>":
		return c > 0
	}
	return c >= 0
}

// debianOrder compares versions as deb-version(7) says.
func debianOrder(a, b string) int {
	split := func(v string) (epoch, upstream, revision string) {
		if e, rest, ok := strings.Cut(v, ":"); ok {
			epoch, v = e, rest
		}
		if i := strings.LastIndexByte(v, '-'); i >= 0 {
			return epoch, v[:i], v[i+1:]
		}
		return epoch, v, ""
	}
	e1, u1, r1 := split(a)
	e2, u2, r2 := split(b)
	for _, pair := range [][2]string{{e1, e2}, {u1, u2}, {r1, r2}} {
		if c := debianPart(pair[0], pair[1]); c != 0 {
			return c
		}
	}
	return 0
}

func debianPart(a, b string) int {
	digit := func(s string, i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }
	order := func(s string, i int) int {
		switch {
		case i >= len(s) || digit(s, i):
			return 0
		case s[i] == '~':
			return -1
		case s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z':
			return int(s[i])
		}
		return int(s[i]) + 256
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		for i < len(a) && !digit(a, i) || j < len(b) && !digit(b, j) {
			if c := order(a, i) - order(b, j); c != 0 {
				return c
			}
			i, j = i+1, j+1
		}
		x, y := i, j
		for digit(a, i) {
			i++
		}
		for digit(b, j) {
			j++
		}
		m, n := strings.TrimLeft(a[min(x, len(a)):min(i, len(a))], "0"), strings.TrimLeft(b[min(y, len(b)):min(j, len(b))], "0")
		if len(m) != len(n) {
			return len(m) - len(n)
		}
		if c := strings.Compare(m, n); c != 0 {
			return c
		}
	}
	return 0
}
