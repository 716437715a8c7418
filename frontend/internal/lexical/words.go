// Package lexical splits the text of an instruction into words and flags, as a shell and
// BuildKit do, and knows where blanks in a shell command are only layout.
package lexical

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Flag is --name or --name=value, without quotes.
type Flag struct {
	Name     string
	Value    string
	HasValue bool
}

// SplitFlags takes the flags from the front of text[at:] and returns where
// the arguments begin. A "--" of its own ends the flags.
//
// BuildKit's parser splits them too, but takes bytes for runes and so garbles
// what is not ASCII.
func SplitFlags(text string, at int, escape byte) (flags []Flag, rest int) {
	for {
		at += len(text[at:]) - len(strings.TrimLeftFunc(text[at:], unicode.IsSpace))
		if !strings.HasPrefix(text[at:], "--") {
			return flags, at
		}
		end, _ := wordEnd(text, at, escape)
		raw := Unquote(text[at:end], escape)
		at = end
		if raw == "--" {
			at += len(text[at:]) - len(strings.TrimLeftFunc(text[at:], unicode.IsSpace))
			return flags, at
		}
		var f Flag
		f.Name, f.Value, f.HasValue = strings.Cut(raw[2:], "=")
		flags = append(flags, f)
	}
}

// SplitWords splits text[at:] into words as written, quotes and escapes
// included: they matter to expansion, which removes them. open is the quote that
// is not closed, or 0.
func SplitWords(text string, at int, escape byte) (words []string, open byte) {
	for {
		at += len(text[at:]) - len(strings.TrimLeftFunc(text[at:], unicode.IsSpace))
		if at == len(text) {
			return words, open
		}
		end, q := wordEnd(text, at, escape)
		if q != 0 {
			open = q
		}
		words = append(words, text[at:end])
		at = end
	}
}

// wordEnd returns where the word at text[at:] ends: at a blank that is neither
// quoted nor escaped nor within ${..}.
func wordEnd(text string, at int, escape byte) (end int, open byte) {
	var quote byte
	depth := 0
	for i := at; i < len(text); {
		c := text[i]
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case c == escape && quote != '\'':
			i++
			if i < len(text) {
				_, size = utf8.DecodeRuneInString(text[i:])
				i += size
			}
			continue
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '$' && i+1 < len(text) && text[i+1] == '{':
			depth++
			size = 2
		case c == '}' && depth > 0:
			depth--
		case depth == 0 && unicode.IsSpace(r):
			return i, 0
		}
		i += size
	}
	return len(text), quote
}

// Unquote removes quotes and escapes, and expands nothing.
func Unquote(s string, escape byte) string {
	if strings.IndexByte(s, '\'') < 0 && strings.IndexByte(s, '"') < 0 && strings.IndexByte(s, escape) < 0 {
		return s
	}
	var b strings.Builder
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == escape && quote != '\'' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Escaped returns the strings of a JSON array as words that expansion takes as
// they are, but for variables.
func Escaped(list []string, escape byte) []string {
	words := make([]string, len(list))
	for n, s := range list {
		var b strings.Builder
		for i := 0; i < len(s); i++ {
			if s[i] == '\'' || s[i] == '"' || s[i] == escape {
				b.WriteByte(escape)
			}
			b.WriteByte(s[i])
		}
		words[n] = b.String()
	}
	return words
}
