package lint

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/edit"
	"github.com/clayer/clayer/internal/order"
)

// FixFiles applies the fixes of findings in the files at paths until there are none: of those
// that overlap one is applied at a time, and again returns the findings in what the files
// are then. It returns what is left, and how many fixes each file got, also with an error.
func FixFiles(ctx context.Context, paths []string, findings []Finding, again func() ([]Finding, error)) (left []Finding, fixed map[string]int, err error) {
	const rounds = 10
	fixed = make(map[string]int)
	for range rounds {
		made := 0
		for _, path := range paths {
			own := slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Pos.File != path })
			n, err := fixFile(ctx, path, own)
			if err != nil {
				return nil, fixed, err
			}
			if made += n; n > 0 {
				fixed[path] += n
			}
		}
		if made == 0 {
			break
		}
		if findings, err = again(); err != nil {
			return nil, fixed, err
		}
	}
	return findings, fixed, nil
}

// fixFile applies the fixes of one file's findings, and returns how many.
func fixFile(ctx context.Context, path string, findings []Finding) (made int, err error) {
	if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Fix != nil }) {
		return 0, nil
	}
	_, err = edit.Update(ctx, path, func(src []byte) (out []byte, err error) {
		if out, made = Apply(src, findings); made > 0 {
			_, err = frontend.Parse(path, out)
		}
		if err != nil {
			err = fmt.Errorf("%s: the fixes would break it, and were not applied: %w", path, err)
		}
		return out, err
	})
	return made, err
}

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
