package inroot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Inside returns where a path of a root is, following links as a process
// chrooted to dir does: the state of a root with an absolute link at /var is in
// that root, not in the machine's /var.
func Inside(dir, p string) (string, error) {
	at := "/"
	links := 0
	for rest := p; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		next := filepath.Join(at, part) // never above /
		target, err := os.Readlink(filepath.Join(dir, next))
		if err != nil {
			at = next // no link, or nothing
			continue
		}
		if links++; links > 40 {
			return "", fmt.Errorf("%s: too many links", filepath.Join(dir, p))
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = target + "/" + rest
	}
	return filepath.Join(dir, at), nil
}

// Under reports whether a clean path is below another.
func Under(p, dir string) bool {
	return len(p) > len(dir) && p[len(dir)] == '/' && strings.HasPrefix(p, dir)
}

// Locked is told of a directory, with its path without links and what it is, before it
// is unlocked. After an error it is left as it is.
type Locked func(path string, st *unix.Stat_t) error

// A FileID identifies a file, whatever names lead to them.
type FileID struct{ dev, ino uint64 }
