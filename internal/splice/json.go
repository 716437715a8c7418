// Package splice puts values into the text of JSON and YAML files, and leaves every other byte
// as it is: comments, order, spacing, line ends.
package splice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Append is the index after the last element of an array.
const Append = -1

// maxDepth bounds how deep values are nested.
const maxDepth = 200

// node is a value in a text: its place, and what is in it.
type node struct {
	start, end int  // end is after its last byte
	kind       byte // '{', '[', or 'v' for everything else
	members    []member
	trailing   bool // a comma follows the last member
}

// member is one of an object, or an element of an array.
type member struct {
	at    int // where its name, or the element, begins
	name  string
	value *node
}

// parser reads JSON with comments and trailing commas.
type parser struct {
	src []byte
	pos int
}

func (p *parser) fail(text string) error {
	return fmt.Errorf("line %d: %s", 1+bytes.Count(p.src[:min(p.pos, len(p.src))], []byte("\n")), text)
}

// space skips white space and comments.
func (p *parser) space() error {
	for p.pos < len(p.src) {
		rest := p.src[p.pos:]
		switch {
		case strings.IndexByte(" \t\r\n", rest[0]) >= 0:
			p.pos++
		case bytes.HasPrefix(rest, []byte("//")):
			if n := bytes.IndexByte(rest, '\n'); n >= 0 {
				p.pos += n
			} else {
				p.pos = len(p.src)
			}
		case bytes.HasPrefix(rest, []byte("/*")):
			n := bytes.Index(rest[2:], []byte("*/"))
			if n < 0 {
				return p.fail("a comment has no end")
			}
			p.pos += n + 4
		default:
			return nil
		}
	}
	return nil
}

// peek returns the byte at the next token, 0 at the end.
func (p *parser) peek() (byte, error) {
	if err := p.space(); err != nil || p.pos >= len(p.src) {
		return 0, err
	}
	return p.src[p.pos], nil
}

func (p *parser) value(depth int) (*node, error) {
	c, err := p.peek()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, p.fail("values are nested too deep")
	}
	n := &node{start: p.pos, kind: 'v'}
	switch c {
	case 0:
		return nil, p.fail("it ends where a value should be")
	case '{', '[':
		n.kind = c
		err = p.list(n, depth)
	default:
		err = p.scalar()
	}
	n.end = p.pos
	return n, err
}

// scalar reads a string, a number, or a word.
func (p *parser) scalar() error {
	start := p.pos
	if p.src[p.pos] == '"' {
		for p.pos++; p.pos < len(p.src) && p.src[p.pos] != '"'; p.pos++ {
			if p.src[p.pos] == '\\' {
				p.pos++
			}
		}
		p.pos++
	} else {
		for p.pos < len(p.src) && strings.IndexByte(" \t\r\n,:]}[{\"/", p.src[p.pos]) < 0 {
			p.pos++
		}
	}
	if p.pos > len(p.src) || !json.Valid(p.src[start:p.pos]) {
		p.pos = start
		return p.fail("want a value of JSON")
	}
	return nil
}

func (p *parser) list(n *node, depth int) error {
	p.pos++
	end := n.kind + 2 // of { and [
	for {
		c, err := p.peek()
		if err != nil {
			return err
		}
		if c == end {
			p.pos++
			return nil
		}
		if len(n.members) > 0 && !n.trailing {
			return p.fail("want a comma")
		}
		m := member{at: p.pos}
		if n.kind == '{' {
			if c != '"' {
				return p.fail("want a name in quotes")
			}
			if err := p.scalar(); err != nil {
				return err
			}
			if err := json.Unmarshal(p.src[m.at:p.pos], &m.name); err != nil {
				return p.fail("want a name in quotes")
			}
			if c, err := p.peek(); err != nil || c != ':' {
				return errors.Join(err, p.fail("want a colon"))
			}
			p.pos++
		}
		if m.value, err = p.value(depth + 1); err != nil {
			return err
		}
		n.members = append(n.members, m)
		if c, err = p.peek(); err != nil {
			return err
		}
		if n.trailing = c == ','; n.trailing {
			p.pos++
		}
	}
}

// parse reads a text that is one value.
func parse(src []byte) (*node, error) {
	p := &parser{src: src}
	if bytes.HasPrefix(src, []byte("\ufeff")) {
		p.pos = len("\ufeff")
	}
	n, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if c, err := p.peek(); err != nil || c != 0 {
		return nil, errors.Join(err, p.fail("something follows the value"))
	}
	return n, nil
}

// child returns a member by its name, the last one of that name as programs take it, or an
// element by its index; nil if there is none.
func (n *node) child(key any) *node {
	if i, ok := key.(int); ok {
		if i >= 0 && i < len(n.members) {
			return n.members[i].value
		}
		return nil
	}
	for _, m := range slices.Backward(n.members) {
		if m.name == key {
			return m.value
		}
	}
	return nil
}

func kindOf(key any) (kind byte, name string) {
	if _, ok := key.(int); ok {
		return '[', "an array"
	}
	return '{', "an object"
}

// Value returns the value at path, names of members and indexes of elements, as it is in a
// text of JSON with comments; nil if there is none.
func Value(src []byte, path ...any) ([]byte, error) {
	n, err := parse(src)
	if err != nil {
		return nil, err
	}
	for _, key := range path {
		if kind, _ := kindOf(key); n.kind != kind {
			return nil, nil
		}
		if n = n.child(key); n == nil {
			return nil, nil
		}
	}
	return src[n.start:n.end], nil
}

// SetValue puts value, JSON indented by two spaces, at path into a text of JSON with comments.
// Objects and arrays on the way are made where there are none, or null. An empty text counts as {}.
func SetValue(src []byte, value string, path ...any) ([]byte, error) {
	if len(bytes.TrimSpace(bytes.TrimPrefix(src, []byte("\ufeff")))) == 0 {
		src = []byte("{}\n")
	}
	n, err := parse(src)
	if err != nil {
		return nil, err
	}
	s := &splicer{src: src, unit: unitOf(src, n), newline: "\n"}
	if bytes.Contains(src, []byte("\r\n")) {
		s.newline = "\r\n"
	}
	for i, key := range path {
		kind, want := kindOf(key)
		if n.kind != kind {
			if string(src[n.start:n.end]) != "null" {
				return nil, fmt.Errorf("%s: want %s", pathText(path[:i]), want)
			}
			return s.replace(n, wrap(value, path[i:])), nil
		}
		next := n.child(key)
		if next == nil {
			return s.insert(n, key, wrap(value, path[i+1:])), nil
		}
		n = next
	}
	return s.replace(n, value), nil
}

func pathText(path []any) string {
	if len(path) == 0 {
		return "the file"
	}
	var words []string
	for _, key := range path {
		words = append(words, fmt.Sprint(key))
	}
	return strings.Join(words, ".")
}

// wrap puts the objects and arrays of path around value.
func wrap(value string, path []any) string {
	for _, key := range slices.Backward(path) {
		inner := "\n  " + strings.ReplaceAll(value, "\n", "\n  ") + "\n"
		if name, ok := key.(string); ok {
			value = "{" + strings.Replace(inner, "\n  ", "\n  "+quote(name)+": ", 1) + "}"
		} else {
			value = "[" + inner + "]"
		}
	}
	return value
}

func quote(name string) string {
	text, _ := json.Marshal(name) // of a string: no error
	return string(text)
}

// splicer puts text into a text, in its style.
type splicer struct {
	src     []byte
	unit    string // one step of indentation
	newline string
}

// unitOf returns by what the members of the outermost value are indented.
func unitOf(src []byte, n *node) string {
	if len(n.members) > 0 {
		if indent, first := indentAt(src, n.members[0].at); first && indent != "" {
			return indent
		}
	}
	return "  "
}

// indentAt returns the white space that the line of a place begins with, and whether nothing
// else is before the place.
func indentAt(src []byte, at int) (indent string, first bool) {
	line := src[bytes.LastIndexByte(src[:at], '\n')+1 : at]
	rest := bytes.TrimLeft(line, " \t")
	return string(line[:len(line)-len(rest)]), len(rest) == 0
}

// at returns value as it is written on a line that begins with indent.
func (s *splicer) at(indent, value string) string {
	lines := strings.Split(value, "\n")
	for i, line := range lines[1:] {
		text := strings.TrimLeft(line, " ")
		lines[i+1] = indent + strings.Repeat(s.unit, (len(line)-len(text))/2) + text
	}
	return strings.Join(lines, s.newline)
}

func (s *splicer) replace(n *node, value string) []byte {
	indent, _ := indentAt(s.src, n.start)
	return slices.Concat(s.src[:n.start], []byte(s.at(indent, value)), s.src[n.end:])
}

// insert adds a last member to n.
func (s *splicer) insert(n *node, key any, value string) []byte {
	close := n.end - 1
	outer, _ := indentAt(s.src, n.start)
	indent := outer + s.unit
	if len(n.members) > 0 {
		if own, first := indentAt(s.src, n.members[0].at); first {
			indent = own
		}
	}
	text := s.at(indent, value)
	if name, ok := key.(string); ok {
		text = quote(name) + ": " + text
	}
	// The comma stands after the last value, before the comments that may follow it.
	head := s.src[:close]
	if k := len(n.members); k > 0 && !n.trailing {
		at := n.members[k-1].value.end
		head = slices.Concat(s.src[:at], []byte(","), s.src[at:close])
	}
	inside := bytes.TrimRight(head, " \t\r\n")
	if len(n.members) > 0 && !strings.Contains(text, "\n") && bytes.IndexByte(s.src[n.start:n.end], '\n') < 0 { // all on one line
		return slices.Concat(inside, []byte(" "+text), head[len(inside):], s.src[close:])
	}
	tail := s.newline + outer
	if n.trailing {
		text += ","
	}
	return slices.Concat(inside, []byte(s.newline+indent+text+tail), s.src[close:])
}
