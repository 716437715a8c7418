// Package lazyregexp has regular expressions that are compiled when they are first
// used: each start of the program, an install by a shim too, would wait for all of
// them.
package lazyregexp

import (
	"os"
	"regexp"
	"strings"
	"sync"
)

// New returns what compiles expr at its first call, and returns the same from then
// on. It panics if expr is none: at once in tests, as regexp.MustCompile does.
func New(expr string) func() *regexp.Regexp {
	compile := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
	if len(os.Args) > 0 && strings.HasSuffix(strings.TrimSuffix(os.Args[0], ".exe"), ".test") {
		compile()
	}
	return compile
}
