// Package credential says by its name, or by its value, whether a variable holds a
// credential.
package credential

import "strings"

// Placeholder stands in variables of sandboxes whose proxy puts the credential into requests:
// it is no secret, and files name it.
const Placeholder = "proxy-injected"

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

// IsValue reports whether a value holds one: a URL with a user, or a user and a
// password.
func IsValue(value string) bool {
	for {
		_, rest, ok := strings.Cut(value, "://")
		if !ok {
			return false
		}
		authority := rest
		if end := strings.IndexAny(rest, "/?# \t\r\n"); end >= 0 {
			authority = rest[:end]
		}
		if strings.Contains(authority, "@") {
			return true
		}
		value = rest
	}
}
