package frontend

import (
	"regexp"
	"strings"
	"unicode"
)

// maxExcerpt is the most runes of a source line that an error shows.
const maxExcerpt = 120

// excerpt returns a source line fit to be shown: without the passwords of
// URLs, without what a terminal would obey, and, where it is long, the part of
// it around the byte column col.
func excerpt(line string, col int) string {
	shown := redact(line)
	if shown != line {
		col = 0 // columns are no longer what they were
	}
	at := len([]rune(shown[:min(col, len(shown))]))
	runes := []rune(strings.TrimRight(show(shown), " "))
	if len(runes) <= maxExcerpt {
		return string(runes)
	}
	from := 0
	if at > maxExcerpt-30 {
		from = min(at-maxExcerpt/3, len(runes)-maxExcerpt)
	}
	to := min(from+maxExcerpt, len(runes))
	text := string(runes[from:to])
	if from > 0 {
		text = "…" + text
	}
	if to < len(runes) {
		text += "…"
	}
	return text
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
	userInfo   = regexp.MustCompile(`://[^/?#\s"'@]*@`)
	slashyUser = regexp.MustCompile(`://[^/?#\s"'@:]*:\d*[^\d/?#\s"'@][^\s"']*@`)
)

const hiddenInfo = "://***@"

// scpInfo is a password in the form that scp and git have: git@user:password@host.
var scpInfo = regexp.MustCompile(`\bgit@[^\s@]*@`)

// redact hides the user and password of URLs.
func redact(s string) string {
	if !strings.Contains(s, "@") {
		return s
	}
	s = scpInfo.ReplaceAllString(s, "git@***@")
	return userInfo.ReplaceAllString(slashyUser.ReplaceAllString(s, hiddenInfo), hiddenInfo)
}
