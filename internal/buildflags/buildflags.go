// Package buildflags has the flags by which clayer is built for its users. The file beside
// this one lists them, a line each, for scripts too.
//
// Functions are inlined where data passes through: in most of the standard library, in zstd, and in
// what packs, unpacks and keys. Elsewhere it makes the program a megabyte larger and
// nothing faster.
package buildflags

import (
	_ "embed"
	"strings"
)

//go:embed flags
var text string

// List returns the flags of go build.
func List() []string { return strings.Split(strings.TrimSpace(text), "\n") }
