package splice

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNone says that a text of YAML has no list at a path.
var ErrNone = errors.New("there is none")

// ErrForm says that what is at a path is written in another form than as a block, one line
// each.
var ErrForm = errors.New("it is not written as a list, one line each")

// block is a part of the lines of a text of YAML.
type block struct {
	lines      []string // all of the text, each with its end
	start, end int      // of the part
	indent     int      // of what is in it
}

// indentOf returns the number of spaces before a line's text; -1 for a line without any, or
// with nothing but a comment.
func indentOf(line string) int {
	text := strings.TrimLeft(line, " ")
	if t := strings.TrimRight(text, "\r\n\t "); t == "" || t[0] == '#' {
		return -1
	}
	return len(line) - len(text)
}

// last returns the line after the last one of the item or the member that begins in line i:
// lines that are indented further, also where they look like comments. They may be text.
func (b block) last(i int, indent int) int {
	end := i + 1
	for j := i + 1; j < b.end; j++ {
		text := strings.TrimRight(b.lines[j], "\r\n\t ")
		if text == "" {
			continue
		}
		if len(text)-len(strings.TrimLeft(text, " ")) <= indent {
			break
		}
		end = j + 1
	}
	return end
}

// member returns the part below a name.
func (b block) member(name string) (block, error) {
	for i := b.start; i < b.end; i++ {
		if indentOf(b.lines[i]) != b.indent {
			continue
		}
		key, rest, ok := strings.Cut(strings.TrimSpace(b.lines[i]), ":")
		if !ok || strings.Trim(key, `"'`) != name {
			continue
		}
		if rest = strings.TrimSpace(rest); rest != "" && rest[0] != '#' {
			return block{}, ErrForm
		}
		// The items of a list may stand as far left as the name.
		in := block{lines: b.lines, start: i + 1, end: b.last(i, b.indent), indent: -1}
		for j := i + 1; j < b.end; j++ {
			if n := indentOf(b.lines[j]); n == b.indent && strings.HasPrefix(b.lines[j][n:], "-") && in.end <= j {
				in.end = b.last(j, b.indent)
			} else if n >= 0 && n <= b.indent && in.end <= j {
				break
			}
		}
		for j := in.start; j < in.end && in.indent < 0; j++ {
			in.indent = indentOf(b.lines[j])
		}
		if in.indent < 0 {
			return block{}, ErrForm
		}
		return in, nil
	}
	return block{}, ErrNone
}

// AddItem adds an item, lines that begin with "- ", to the list at path in a text of YAML:
// after the first item for which after holds, or else as the last one.
func AddItem(src, item string, after func(item string) bool, path ...string) (string, error) {
	b := block{lines: slices.Collect(strings.Lines(src))}
	b.end = len(b.lines)
	for i, line := range b.lines {
		if strings.HasPrefix(strings.TrimLeft(line, " "), "\t") {
			return "", fmt.Errorf("line %d: %w", i+1, errors.New("a tab indents it"))
		}
		if text := strings.TrimSpace(line); text == "---" || text == "..." { // the last document is meant
			b.start = i + 1
		}
	}
	for i, name := range path {
		var err error
		if b, err = b.member(name); err != nil {
			return "", fmt.Errorf("%s: %w", strings.Join(path[:i+1], "."), err)
		}
	}
	at := -1
	for i := b.start; i < b.end; i++ {
		if indentOf(b.lines[i]) != b.indent {
			continue
		}
		if text := b.lines[i][b.indent:]; !strings.HasPrefix(text, "- ") && strings.TrimSpace(text) != "-" {
			return "", fmt.Errorf("%s: %w", strings.Join(path, "."), ErrForm)
		}
		end := b.last(i, b.indent)
		at = end
		if after(strings.Join(b.lines[i:end], "")) {
			break
		}
	}
	newline := "\n"
	if strings.Contains(src, "\r\n") {
		newline = "\r\n"
	}
	var text strings.Builder
	for line := range strings.Lines(item) {
		text.WriteString(strings.Repeat(" ", b.indent) + strings.TrimRight(line, "\n") + newline)
	}
	before := strings.Join(b.lines[:at], "")
	if !strings.HasSuffix(before, "\n") {
		before += newline
	}
	return before + text.String() + strings.Join(b.lines[at:], ""), nil
}
