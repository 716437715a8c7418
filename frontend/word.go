package frontend

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A word is an argument as written, quotes and escapes included: they matter
// to expansion, which removes them.
type word struct {
	raw string
	at  int // where it begins in the instruction's text
}

// A flag is --name or --name=value, without quotes.
type flag struct {
	name     string
	value    string
	hasValue bool
	at       int
}

// splitFlags takes the flags from the front of text[at:] and returns where
// the arguments begin. A "--" of its own ends the flags.
//
// BuildKit's parser splits them too, but takes bytes for runes and so garbles
// what is not ASCII.
func splitFlags(text string, at int, escape byte) (flags []flag, rest int) {
	for {
		at += len(text[at:]) - len(strings.TrimLeftFunc(text[at:], unicode.IsSpace))
		if !strings.HasPrefix(text[at:], "--") {
			return flags, at
		}
		end, _ := wordEnd(text, at, escape)
		raw := unquote(text[at:end], escape)
		start := at
		at = end
		if raw == "--" {
			at += len(text[at:]) - len(strings.TrimLeftFunc(text[at:], unicode.IsSpace))
			return flags, at
		}
		f := flag{at: start}
		f.name, f.value, f.hasValue = strings.Cut(raw[2:], "=")
		flags = append(flags, f)
	}
}

// splitWords splits text[at:] into words. open is the quote that is not
// closed, or 0.
func splitWords(text string, at int, escape byte) (words []word, open byte) {
	for {
		at += len(text[at:]) - len(strings.TrimLeftFunc(text[at:], unicode.IsSpace))
		if at == len(text) {
			return words, open
		}
		end, q := wordEnd(text, at, escape)
		if q != 0 {
			open = q
		}
		words = append(words, word{text[at:end], at})
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

// unquote removes quotes and escapes, and expands nothing.
func unquote(s string, escape byte) string {
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

// jsonWords returns the words of a JSON array of strings, escaped so that
// expansion takes them as they are but for variables. ok is false where args
// is no such array.
func jsonWords(args string, at int, escape byte) (words []word, ok bool) {
	if !strings.HasPrefix(args, "[") {
		return nil, false
	}
	var list []string
	if json.Unmarshal([]byte(args), &list) != nil {
		return nil, false
	}
	for _, s := range list {
		var b strings.Builder
		for i := 0; i < len(s); i++ {
			if s[i] == '\'' || s[i] == '"' || s[i] == escape {
				b.WriteByte(escape)
			}
			b.WriteByte(s[i])
		}
		words = append(words, word{b.String(), at})
	}
	return words, true
}
