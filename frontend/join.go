package frontend

import (
	"sort"
	"strings"
	"unicode"
)

// joined is an instruction on one line, as BuildKit's parser joins it, with
// where each part of it came from: the parser keeps the text alone.
type joined struct {
	text  string
	parts []part
}

// part is what one source line brought.
type part struct {
	at    int // where it begins in the text
	line  int // its source line, from 1
	start int // where it begins in that line, in bytes
}

// join joins the instruction that begins at line start, from 1. Comments and
// blank lines within it are left out. It must do as parser.Parse does; a test
// compares the two.
func join(lines []string, start int, escape byte) joined {
	var j joined
	var b strings.Builder
	for i := start - 1; i < len(lines); i++ {
		line := strings.TrimRight(lines[i], "\r")
		if i > start-1 && (isComment(line) || isBlank(line)) {
			continue
		}
		cut := 0
		if i == start-1 {
			cut = len(line) - len(strings.TrimLeftFunc(line, unicode.IsSpace))
		}
		line, more := cutContinuation(line[cut:], escape)
		j.parts = append(j.parts, part{at: b.Len(), line: i + 1, start: cut})
		b.WriteString(line)
		if !more {
			break
		}
	}
	j.text = b.String()
	return j
}

// source returns the source line of a place in the text, from 1, and the byte
// column there.
func (j *joined) source(at int) (line, col int) {
	i := sort.Search(len(j.parts), func(i int) bool { return j.parts[i].at > at }) - 1
	if i < 0 {
		return 0, 0
	}
	p := j.parts[i]
	return p.line, p.start + at - p.at
}

// seams returns where in text[from:] two source lines meet.
func (j *joined) seams(from int) []int {
	var seams []int
	for _, p := range j.parts {
		if p.at >= from && p.at > 0 {
			seams = append(seams, p.at-from)
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

func isComment(line string) bool {
	t := strings.TrimLeftFunc(line, unicode.IsSpace)
	return t != "" && t[0] == '#'
}

func isBlank(line string) bool {
	return strings.TrimLeftFunc(line, unicode.IsSpace) == ""
}
