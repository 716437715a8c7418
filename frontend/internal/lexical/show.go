package lexical

import (
	"strings"
	"unicode"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// MaxExcerpt is the most runes of a source line that an error shows.
const MaxExcerpt = 120

// Excerpt returns a source line fit to be shown: without the passwords of URLs,
// without what a terminal would obey, and of a long one the beginning.
func Excerpt(line string) string {
	runes := []rune(strings.TrimRight(Show(Redact(line)), " "))
	if len(runes) <= MaxExcerpt {
		return string(runes)
	}
	return string(runes[:MaxExcerpt]) + "…"
}

// Show makes blanks of tabs, and marks other control characters.
func Show(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// The second form is for a password with a "/" in it; https://host:80/a@b is
// no such thing.
var (
	userInfo   = lazyregexp.New(`://[^/?#\s"'@]*@`)
	slashyUser = lazyregexp.New(`://[^/?#\s"'@:]*:\d*[^\d/?#\s"'@][^\s"']*@`)
)

const hiddenInfo = "://***@"

// scpInfo is a password in the form that scp and git have: git@user:password@host.
var scpInfo = lazyregexp.New(`\bgit@[^\s@]*@`)

// Redact hides the user and password of URLs.
func Redact(s string) string {
	if !strings.Contains(s, "@") {
		return s
	}
	s = scpInfo().ReplaceAllString(s, "git@***@")
	return userInfo().ReplaceAllString(slashyUser().ReplaceAllString(s, hiddenInfo), hiddenInfo)
}
