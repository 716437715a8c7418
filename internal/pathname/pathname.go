// Package pathname compares paths by their text.
package pathname

import "strings"

// Under reports whether the clean path p is dir or below it.
func Under(p, dir string) bool {
	return dir == "/" || strings.HasPrefix(p, dir) && (len(p) == len(dir) || p[len(dir)] == '/')
}
