// Package printable makes text that others wrote, such as a store, a server or an
// archive, fit to be shown: control characters that a terminal would obey are
// written as escapes, and so are those that change the direction of text and make
// it look like another.
package printable

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Text returns s with its control characters escaped, but for ends of lines and
// tabs: ESC as \x1b, a C1 control or a bidirectional one as \u202e, a byte that is
// no UTF-8 as \x9b. In the text of JSON an escape stands for the same character.
func Text(s string) string { return escape(s, "\n\t") }

// Line is Text for what stands within a line or a cell of a table: what would end
// that is escaped too.
func Line(s string) string { return escape(s, "") }

// escape escapes control characters, except those in except.
func escape(s, except string) string {
	clean := func(r rune, size int) bool {
		return !isControl(r) && (r != utf8.RuneError || size > 1) || strings.ContainsRune(except, r)
	}
	var b strings.Builder
	done := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if clean(r, size) {
			i += size
			continue
		}
		b.WriteString(s[done:i])
		switch {
		case r == utf8.RuneError:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < ' ':
			fmt.Fprintf(&b, `\x%02x`, r)
		default: // also DEL: JSON has no \x7f
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += size
		done = i
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

func isControl(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// A Writer writes Text of what is written to it.
type Writer struct {
	w io.Writer

	mu   sync.Mutex
	part []byte // the beginning of a character that the next Write completes
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

func (p *Writer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := append(p.part, b...)
	p.part = nil
	for i := len(text) - 1; i >= 0 && i >= len(text)-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRune(text[i:]) {
				text, p.part = text[:i], text[i:len(text):len(text)]
			}
			break
		}
	}
	if _, err := io.WriteString(p.w, Text(string(text))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Flush writes what waits for the rest of a character that does not come.
func (p *Writer) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.part
	p.part = nil
	if len(part) == 0 {
		return nil
	}
	_, err := io.WriteString(p.w, Text(string(part)))
	return err
}

// Exact returns what a Writer writes to, for output that a program reads byte by
// byte, and for what draws on a terminal. Another writer is returned as it is.
func Exact(w io.Writer) io.Writer {
	if p, ok := w.(*Writer); ok {
		return p.w
	}
	return w
}
