package frontend

import (
	"strings"
	"unicode"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// joined returns the instruction that begins at a line as one line, without
// its heredocs. The indentation of a continued line is the writer's layout and
// becomes one space, except within quotes; comments and blank lines between
// continued lines fall out. So layout enters no key.
func (p *fileParser) joined(start int) string {
	var b strings.Builder
	var quote rune
	for i := start - 1; i < len(p.file.Lines); i++ {
		line := p.file.Lines[i]
		if i > start-1 {
			trimmed := strings.TrimLeftFunc(line, unicode.IsSpace)
			if trimmed == "" || trimmed[0] == '#' {
				continue
			}
		}
		text, more := p.continued(line)
		if i > start-1 && quote == 0 {
			left := strings.TrimRight(b.String(), " \t")
			right := strings.TrimLeft(text, " \t")
			if left != b.String() || right != text {
				left += " "
			}
			b.Reset()
			b.WriteString(left)
			text = right
		}
		quote = quoteAt(text, quote)
		b.WriteString(text)
		if !more {
			break
		}
	}
	return strings.TrimSpace(b.String())
}

// continued returns a line without its continuation character, and whether it
// has one: the escape character as the last but blanks, not itself escaped.
func (p *fileParser) continued(line string) (string, bool) {
	trimmed := strings.TrimRight(line, " \t")
	esc := string(p.escape)
	if !strings.HasSuffix(trimmed, esc) || strings.HasSuffix(trimmed, esc+esc) {
		return line, false
	}
	return strings.TrimSuffix(trimmed, esc), true
}

// quoteAt returns the quote that is open behind text, if quote was before it.
func quoteAt(text string, quote rune) rune {
	escaped := false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case c == '\\' && quote != '\'':
			escaped = true
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		}
	}
	return quote
}

// split cuts a line into its word, its flags as written, and the rest.
func split(line string) (word string, flags []string, rest string) {
	word, rest, _ = cutBlank(line)
	for strings.HasPrefix(rest, "--") {
		n := tokenLen(rest)
		flag := rest[:n]
		rest = strings.TrimLeft(rest[n:], " \t")
		if flag == "--" {
			break
		}
		flags = append(flags, flag)
	}
	return word, flags, rest
}

func cutBlank(s string) (before, after string, ok bool) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, "", false
	}
	return s[:i], strings.TrimLeft(s[i:], " \t"), true
}

// tokenLen returns the length of the token at the beginning of s: up to a blank
// that is neither quoted nor escaped.
func tokenLen(s string) int {
	var quote rune
	escaped := false
	for i, c := range s {
		switch {
		case escaped:
			escaped = false
		case c == '\\' && quote != '\'':
			escaped = true
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == ' ' || c == '\t':
			return i
		}
	}
	return len(s)
}

// tokens cuts s at blanks that are neither quoted nor escaped. Quotes stay.
func tokens(s string) []string {
	var list []string
	for s = strings.TrimLeft(s, " \t"); s != ""; s = strings.TrimLeft(s, " \t") {
		n := tokenLen(s)
		list = append(list, s[:n])
		s = s[n:]
	}
	return list
}

// people returns a line as people read it: blanks folded, of a long one the beginning.
func people(word, rest string) string {
	text := strings.Join(strings.Fields(word+" "+rest), " ")
	if r := []rune(text); len(r) > 500 {
		text = string(r[:499]) + "…"
	}
	return text
}

// excerpt is a source line as an error shows it.
func (f *File) excerpt(line int) string {
	if line < 1 || line > len(f.Lines) {
		return ""
	}
	text := strings.TrimRightFunc(strings.ReplaceAll(f.Lines[line-1], "\t", " "), unicode.IsSpace)
	if r := []rune(text); len(r) > 120 {
		text = string(r[:119]) + "…"
	}
	return text
}

// cacheBust returns the texts of the cache-bust comments of lines from to to,
// both counted from 1, leaving out lines of heredocs.
func (p *fileParser) cacheBust(from, to int) []string {
	var list []string
	for i := from; i <= to && i <= len(p.file.Lines); i++ {
		text, ok := strings.CutPrefix(strings.TrimSpace(p.file.Lines[i-1]), "#")
		if !ok {
			continue
		}
		name, value, ok := strings.Cut(text, ":")
		if ok && strings.EqualFold(strings.TrimSpace(name), "cache-bust") {
			list = append(list, strings.TrimSpace(value))
		}
	}
	return list
}

// lineEnd returns the last line of the instruction itself, before its heredocs.
func lineEnd(n *parser.Node) int {
	end := n.EndLine
	for _, h := range n.Heredocs {
		end -= strings.Count(h.Content, "\n") + 1
	}
	return max(end, n.StartLine)
}
