package frontend

import (
	"path/filepath"
	"strings"
)

// LayerName returns the name of the layer in the file at path: Containerfile is
// "base", Containerfile.X is X, any other file its name without the last
// extension. It is in lower case, what is not in [a-z0-9_-] is "-", "-" at the
// ends is dropped, and an empty name is "layer".
func LayerName(path string) string {
	name := filepath.Base(path)
	switch rest, ok := strings.CutPrefix(name, "Containerfile."); {
	case name == "Containerfile":
		return "base"
	case ok:
		name = rest
	default:
		name = strings.TrimSuffix(name, filepath.Ext(name))
	}
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	if name = strings.Trim(name, "-"); name == "" {
		return "layer"
	}
	return name
}
