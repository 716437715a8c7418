package buildchecks

import (
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/internal/lazyregexp"
)

var onlyHex = lazyregexp.New(`^[a-f0-9]{64}$`)

// isReference reports whether a word can be the name of an image, and no id of one.
func isReference(word string) bool {
	_, err := imageref.Parse(word)
	return err == nil && !onlyHex().MatchString(word)
}

// secret and harmless are parts of the names of variables, in any case.
var (
	secret   = lazyregexp.New(`(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`)
	harmless = lazyregexp.New(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
)

func isSecret(name string) bool { return secret().MatchString(name) && !harmless().MatchString(name) }
