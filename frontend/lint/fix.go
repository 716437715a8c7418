package lint

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/clayer/clayer/internal/order"
)

// Apply makes the fixes of the findings in the text of a file, and returns how
// many it made. Of fixes that overlap the first is made: after a look at the
// result the next may be. Byte order mark and line ends stay as they are.
func Apply(src []byte, findings []Finding) ([]byte, int) {
	bom := []byte("\ufeff")
	text, marked := bytes.CutPrefix(src, bom)
	starts := []int{0} // of each line
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	offset := func(line, column int) int {
		if line > len(starts) {
			return len(text)
		}
		return min(starts[line-1]+column-1, len(text))
	}
	type change struct {
		from, to int
		text     string
	}
	var changes []change
	made := 0
	for _, f := range findings {
		if f.Fix == nil {
			continue
		}
		var own []change
		for _, e := range f.Fix.Edits {
			own = append(own, change{offset(e.Line, e.Column), offset(e.EndLine, e.EndColumn), e.Text})
		}
		overlaps := slices.ContainsFunc(own, func(a change) bool {
			return slices.ContainsFunc(changes, func(b change) bool {
				return a.from < b.to && b.from < a.to || a.from == b.from
			})
		})
		if !overlaps {
			changes = append(changes, own...)
			made++
		}
	}
	order.Stable(changes, func(a, b change) int { return cmp.Compare(a.from, b.from) })
	var out bytes.Buffer
	if marked {
		out.Write(bom)
	}
	at := 0
	for _, c := range changes {
		out.Write(text[at:c.from])
		out.WriteString(c.text)
		at = c.to
	}
	out.Write(text[at:])
	return out.Bytes(), made
}
