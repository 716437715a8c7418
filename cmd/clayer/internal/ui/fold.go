package ui

import (
	"bytes"
	"io"
	"strings"

	"github.com/clayer/clayer/internal/printable"
)

// columns returns how many columns a terminal has; 0 where w is none: what a program reads
// has a record on each line.
func columns(w io.Writer) int {
	size := terminal(printable.Exact(w))
	if size == nil {
		return 0
	}
	n, _ := size()
	return n
}

// Folded writes what write writes; on a terminal, lines that are longer than it is wide are
// folded between words. hang is how far the rest of such a line is indented.
func Folded(w io.Writer, hang int, write func(w io.Writer) error) error {
	most := columns(w)
	if most == 0 {
		return write(w)
	}
	var b bytes.Buffer
	err := write(&b)
	for line := range strings.Lines(b.String()) {
		if _, werr := io.WriteString(w, fold(line, most, hang)); err == nil {
			err = werr
		}
	}
	return err
}

// fold breaks a line that is wider than most columns. A word that fits nowhere stays whole.
func fold(line string, most, hang int) string {
	if hang > most-20 {
		hang = 4 // on a narrow terminal, nothing would be left
	}
	line, end := strings.CutSuffix(line, "\n")
	if !strings.HasPrefix(line, " ") {
		hang = min(hang, 14) // a line of its own, not of a table's last column
	}
	var out strings.Builder
	indent := len(line) - len(strings.TrimLeft(line, " "))
	column := 0
	for word := range strings.SplitAfterSeq(line, " ") {
		wide := width(strings.TrimRight(word, " "))
		if wide > 0 && column+wide > most && column > max(indent, hang) {
			text := strings.TrimRight(out.String(), " ")
			out.Reset()
			out.WriteString(text + "\n" + strings.Repeat(" ", hang))
			column = hang
		}
		out.WriteString(word)
		column += width(word)
	}
	if end {
		out.WriteByte('\n')
	}
	return out.String()
}
