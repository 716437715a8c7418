package lexical

import (
	"strings"
	"unicode"
)

// Joined is an instruction on one line, as BuildKit's parser joins it, with
// where each source line of it begins: the parser returns the text alone.
type Joined struct {
	Text string
	at   []int
}

// Join joins the instruction that begins at line start, from 1. Comments and
// blank lines within it are left out. It must do as parser.Parse does; a test
// compares the two.
func Join(lines []string, start int, escape byte) Joined {
	var j Joined
	var b strings.Builder
	for i := start - 1; i < len(lines); i++ {
		line := strings.TrimRight(lines[i], "\r")
		if i > start-1 && (IsComment(line) || IsBlank(line)) {
			continue
		}
		cut := 0
		if i == start-1 {
			cut = len(line) - len(strings.TrimLeftFunc(line, unicode.IsSpace))
		}
		line, more := cutContinuation(line[cut:], escape)
		j.at = append(j.at, b.Len())
		b.WriteString(line)
		if !more {
			break
		}
	}
	j.Text = b.String()
	return j
}

// Seams returns where in Text[from:] two source lines meet.
func (j *Joined) Seams(from int) []int {
	var seams []int
	for _, at := range j.at {
		if at >= from && at > 0 {
			seams = append(seams, at-from)
		}
	}
	return seams
}

// cutContinuation cuts the escape character at the end of a line, and reports
// whether there was one. One that is itself escaped doesn't count.
func cutContinuation(line string, escape byte) (string, bool) {
	t := strings.TrimRight(line, " \t")
	n := len(t)
	if n == 0 || t[n-1] != escape || n > 1 && t[n-2] == escape {
		return line, false
	}
	return t[:n-1], true
}

// IsComment reports whether a line is a comment.
func IsComment(line string) bool {
	t := strings.TrimLeftFunc(line, unicode.IsSpace)
	return t != "" && t[0] == '#'
}

// IsBlank reports whether a line has nothing but blanks.
func IsBlank(line string) bool {
	return strings.TrimLeftFunc(line, unicode.IsSpace) == ""
}
