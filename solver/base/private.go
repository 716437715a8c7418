package base

import (
	"path/filepath"

	"github.com/clayer/clayer/solver/machine"
)

// Private returns what says of a path of a root, without links, whether it is somebody's own:
// below a home directory, or a place of credentials.
func Private(dir string) func(p string) bool {
	f := newFilter(dir)
	f.homes(dir, "", func(p string) (string, bool) {
		real, err := machine.Within(dir, p)
		rel, relErr := filepath.Rel(dir, real)
		return rel, err == nil && relErr == nil && filepath.IsLocal(rel)
	})
	return func(p string) bool {
		for at := range len(p) + 1 {
			if at < len(p) && p[at] != '/' {
				continue
			}
			switch f.why(p[:at]) {
			case ofHome, ofCredential, ofKey, ofLogin, ofSecret, ofHistory:
				return true
			}
		}
		return false
	}
}
