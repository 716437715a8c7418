// Package pathname compares and joins paths by their text.
package pathname

import (
	"path"
	"strings"
)

// Under reports whether the clean path p is dir or below it.
func Under(p, dir string) bool {
	return dir == "/" || strings.HasPrefix(p, dir) && (len(p) == len(dir) || p[len(dir)] == '/')
}

// Absolute returns a clean path; a relative one is below dir.
func Absolute(dir, p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join("/", dir, p)
}

// IsPacked reports whether a file is called like an archive: a tar, compressed or not, or a zip.
func IsPacked(name string) bool {
	name = strings.ToLower(name)
	for _, end := range []string{".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz", ".tar.zst", ".tzst", ".zip"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}
