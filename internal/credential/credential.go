// Package credential says by its name, or by its value, whether a variable holds a
// credential.
package credential

import (
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// IsName reports whether a variable of that name holds one: *_TOKEN, *_KEY, *_SECRET,
// *_PAT and *PASS*, in upper or lower case.
func IsName(name string) bool {
	name = strings.ToUpper(name)
	for _, end := range []string{"_TOKEN", "_KEY", "_SECRET", "_PAT"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return strings.Contains(name, "PASS")
}

var userInfo = lazyregexp.New(`[A-Za-z][A-Za-z0-9+.-]*://[^/?#@\s]+@`)

// IsValue reports whether a value holds one: a URL with a user, or a user and a
// password.
func IsValue(value string) bool { return strings.Contains(value, "@") && userInfo().MatchString(value) }
