// Package versions compares versions of packages, as the package managers do that have
// them. It is pure.
package versions

import (
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

var (
	pyVersion  = lazyregexp.New(`^v?(?:([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)[-_.]?(?:(a|b|c|rc|alpha|beta|pre|preview)[-_.]?([0-9]*))?(?:[-_.]?(post|rev|r)[-_.]?([0-9]*)|-([0-9]+))?(?:[-_.]?(dev)[-_.]?([0-9]*))?(?:\+.*)?$`)
	comparison = lazyregexp.New(`^(===|==|!=|<=|>=|~=|<|>)\s*(\S+)$`)
	separators = lazyregexp.New(`[-_.]+`)
	markerWord = lazyregexp.New(`\s*(\(|\)|'[^']*'|"[^"]*"|===|==|!=|<=|>=|~=|<|>|[A-Za-z_.]+)`)
)

// PythonName returns the name of a distribution as names are compared.
func PythonName(name string) string {
	if !strings.ContainsAny(name, "_.") && !strings.Contains(name, "--") {
		return strings.ToLower(name)
	}
	return strings.ToLower(separators().ReplaceAllString(name, "-"))
}

// pyKey returns numbers by which versions of Python's packages (PEP 440) compare.
func pyKey(v string) []int {
	m := pyVersion().FindStringSubmatch(strings.ToLower(strings.TrimSpace(v)))
	if m == nil {
		return nil
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n } // "" is 0
	key := []int{number(m[1])}
	release := make([]int, 8)
	for i, part := range strings.Split(m[2], ".") {
		if i < len(release) {
			release[i] = number(part)
		}
	}
	key = append(key, release...)
	pre := 4 // a final release
	switch {
	case strings.HasPrefix(m[3], "a"):
		pre = 1
	case strings.HasPrefix(m[3], "b"):
		pre = 2
	case m[3] != "":
		pre = 3
	case m[8] != "" && m[5]+m[7] == "":
		pre = 0
	}
	post, dev := -1, 1<<30
	if m[5] != "" || m[7] != "" {
		post = number(m[6] + m[7])
	}
	if m[8] != "" {
		dev = number(m[9])
	}
	return append(key, pre, number(m[4]), post, dev)
}

// Python reports whether a version is among those of a specifier, as ">=2.5,<4".
// What cannot be read is taken as satisfied.
func Python(version, specifier string) bool {
	for part := range strings.SplitSeq(specifier, ",") {
		m := comparison().FindStringSubmatch(strings.TrimSpace(part))
		if m == nil {
			continue
		}
		if !comparePython(version, m[1], m[2]) {
			return false
		}
	}
	return true
}

func comparePython(version, op, want string) bool {
	if op == "===" {
		return version == want
	}
	prefix, wild := strings.CutSuffix(want, ".*")
	a, b := pyKey(version), pyKey(prefix)
	if a == nil || b == nil {
		return true
	}
	parts := strings.Count(prefix, ".") + 1
	begins := func(n int) bool { return n <= 8 && slices.Equal(a[:n+1], b[:n+1]) }
	switch c := slices.Compare(a, b); op {
	case "==":
		return wild && begins(parts) || !wild && c == 0
	case "!=":
		return wild && !begins(parts) || !wild && c != 0
	case ">=":
		return c >= 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	case "<":
		return c < 0
	default: // ~=
		return c >= 0 && parts > 1 && begins(parts-1)
	}
}

// Marker reports whether a marker (PEP 508) holds for CPython of a version on this
// system. One that asks for what is not known does not hold.
func Marker(marker, python, extra string) bool {
	var words []string
	for marker = strings.TrimSpace(marker); marker != ""; marker = strings.TrimSpace(marker) {
		at := markerWord().FindStringSubmatchIndex(marker)
		if at == nil || at[0] != 0 {
			return false
		}
		words = append(words, marker[at[2]:at[3]])
		marker = marker[at[1]:]
	}
	p := &markerParser{words: words, values: map[string]string{
		"python_version": python, "python_full_version": python, "extra": extra, "os_name": "posix", "sys_platform": "linux",
		"platform_system": "Linux", "platform_python_implementation": "CPython", "implementation_name": "cpython",
		"platform_machine": map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH],
	}}
	return p.or() && len(p.words) == 0
}

type markerParser struct {
	words  []string
	values map[string]string
}

func (p *markerParser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *markerParser) takes(word string) bool {
	if len(p.words) > 0 && p.words[0] == word {
		p.words = p.words[1:]
		return true
	}
	return false
}

func (p *markerParser) or() bool {
	holds := p.and()
	for p.takes("or") {
		right := p.and()
		holds = holds || right
	}
	return holds
}

func (p *markerParser) and() bool {
	holds := p.atom()
	for p.takes("and") {
		right := p.atom()
		holds = holds && right
	}
	return holds
}

func (p *markerParser) atom() bool {
	if p.takes("(") {
		holds := p.or()
		return p.takes(")") && holds
	}
	left, op := p.next(), p.next()
	if op == "not" {
		op += " " + p.next()
	}
	right := p.next()
	a, known := p.value(left)
	b, alsoKnown := p.value(right)
	if !known || !alsoKnown {
		return false
	}
	switch op {
	case "in":
		return strings.Contains(b, a)
	case "not in":
		return !strings.Contains(b, a)
	}
	if left == "extra" || right == "extra" {
		a, b = PythonName(a), PythonName(b)
	}
	if strings.HasPrefix(left, "python_") || strings.HasPrefix(right, "python_") {
		return comparePython(a, op, b)
	}
	switch op {
	case "==":
		return a == b
	case "!=":
		return a != b
	}
	return false
}

func (p *markerParser) value(word string) (string, bool) {
	if word != "" && (word[0] == '\'' || word[0] == '"') {
		return word[1 : len(word)-1], true
	}
	v, ok := p.values[word]
	return v, ok && (v != "" || word == "extra")
}
