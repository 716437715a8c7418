// Package problem says what is wrong with a Containerfile, and where.
package problem

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Pos is where an instruction stands.
type Pos struct {
	File string // as the user named it
	Line int    // its first line, from 1; 0 for the file as a whole
	End  int    // its last line, heredocs included
}

func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// A Problem is something in a Containerfile that must be changed by its writer.
type Problem struct {
	Pos     Pos
	Word    string // the instruction, "FETCH"; "" for the file as a whole
	Message string // what is wrong
	Line    string // the line itself; "" where there is none
	Detail  string // more lines: want and got
	Hint    string // what to do
	Err     error  // its kind, for programs that decide by it; nil for most
}

// Error returns the problem with its line, and what to do:
//
//	Containerfile:4: FETCH: dest "opt/x" is not absolute
//	  4 | FETCH https://example.com/x.tar.gz opt/x
//	      detail
//	hint: write /opt/x
func (p *Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", p.Pos)
	if p.Word != "" {
		fmt.Fprintf(&b, "%s: ", p.Word)
	}
	b.WriteString(p.Message)
	gutter := fmt.Sprintf("  %d | ", p.Pos.Line)
	if p.Line != "" {
		fmt.Fprintf(&b, "\n%s%s", gutter, p.Line)
	}
	if p.Detail != "" {
		pad := strings.Repeat(" ", len(gutter))
		fmt.Fprintf(&b, "\n%s%s", pad, strings.ReplaceAll(p.Detail, "\n", "\n"+pad))
	}
	if p.Hint != "" {
		fmt.Fprintf(&b, "\nhint: %s", p.Hint)
	}
	return b.String()
}

// Problems is all that is wrong with one or more files, by position.
type Problems []*Problem

func (ps Problems) Error() string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = p.Error()
	}
	return strings.Join(texts, "\n")
}

// Sorted returns ps in order of file and line.
func (ps Problems) Sorted() Problems {
	slices.SortStableFunc(ps, func(a, b *Problem) int {
		return cmp.Or(strings.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line))
	})
	return ps
}

// Err returns ps as an error, and nil where there are none.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}
