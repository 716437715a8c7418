package frontend

import (
	"strings"
	"unicode"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// maxExcerpt is the most runes of a source line that an error shows.
const maxExcerpt = 120

// excerpt returns a source line fit to be shown: without the passwords of URLs,
// without what a terminal would obey, and of a long one the beginning.
func excerpt(line string) string {
	runes := []rune(strings.TrimRight(show(redact(line)), " "))
	if len(runes) <= maxExcerpt {
		return string(runes)
	}
	return string(runes[:maxExcerpt]) + "…"
}

// show makes blanks of tabs, and marks other control characters.
func show(s string) string {
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

// redact hides the user and password of URLs.
func redact(s string) string {
	if !strings.Contains(s, "@") {
		return s
	}
	s = scpInfo().ReplaceAllString(s, "git@***@")
	return userInfo().ReplaceAllString(slashyUser().ReplaceAllString(s, hiddenInfo), hiddenInfo)
}

// Excerpt returns a line, from 1, fit to be shown; "" where there is none.
func (f *File) Excerpt(line int) string {
	if line < 1 || line > len(f.Lines) {
		return ""
	}
	return excerpt(f.Lines[line-1])
}
