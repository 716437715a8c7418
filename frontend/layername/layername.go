// Package layername names layers by their files. It is pure.
package layername

import (
	"path/filepath"
	"strings"
)

// Of returns the name of the layer that the file at path holds:
// "base" for Containerfile, "x" for Containerfile.x, and else the file's name
// without its last extension, so that a Dockerfile is "dockerfile". It holds
// lower-case letters, digits, "-" and "_" only, and is "layer" where nothing
// of that is left.
func Of(path string) string {
	name := filepath.Base(path)
	if name == "Containerfile" {
		return "base"
	}
	if suffix, ok := strings.CutPrefix(name, "Containerfile."); ok {
		name = suffix
	} else if i := strings.LastIndexByte(name, '.'); i > 0 { // ".env" has no extension
		name = name[:i]
	}
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '-'
	}, strings.ToLower(name))
	if name = strings.Trim(name, "-"); name == "" {
		return "layer"
	}
	return name
}
