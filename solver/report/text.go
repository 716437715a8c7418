package report

import (
	"bytes"
	"strings"

	"github.com/clayer/clayer/internal/printable"
)

// PlainText returns a line that a program printed as it can be shown among
// others: without escape sequences and control characters.
func PlainText(line []byte) string {
	line = Overwritten(line)
	var b strings.Builder
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == 0x1b:
			i = skipEscape(line, i)
		case c == '\t' || c >= ' ' && c != 0x7f:
			b.WriteByte(c)
		}
	}
	return printable.Text(strings.ToValidUTF8(strings.TrimRight(b.String(), " \t"), "\uFFFD"))
}

// PlainLines returns lines that a program printed, each as PlainText.
func PlainLines(output []byte) (lines []string) {
	for line := range bytes.Lines(bytes.TrimRight(output, "\r\n")) {
		lines = append(lines, PlainText(bytes.TrimRight(line, "\n")))
	}
	return lines
}

// skipEscape returns the index of the last byte of the sequence at i:
// CSI (ESC [ .. final byte), OSC (ESC ] .. BEL or ESC \), or two bytes (ECMA-48).
func skipEscape(line []byte, i int) int {
	if i+1 >= len(line) {
		return i
	}
	switch line[i+1] {
	case '[':
		for j := i + 2; j < len(line); j++ {
			if line[j] >= 0x40 && line[j] <= 0x7e {
				return j
			}
		}
		return len(line) - 1
	case ']':
		for j := i + 2; j < len(line); j++ {
			if line[j] == 0x07 {
				return j
			}
			if line[j] == 0x1b && j+1 < len(line) {
				return j + 1
			}
		}
		return len(line) - 1
	}
	return i + 1
}

// Overwritten drops what a carriage return has a terminal overwrite: of a
// progress bar the last state is left.
func Overwritten(line []byte) []byte {
	end := len(bytes.TrimRight(line, "\r"))
	return line[bytes.LastIndexByte(line[:end], '\r')+1:]
}
