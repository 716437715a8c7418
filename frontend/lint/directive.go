package lint

import (
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/buildchecks"
)

// skips says which rules a file turns off: by name, for the line of an
// instruction, or under line 0 for the whole file.
type skips struct {
	rules map[int][]string
	lines map[string]int // where a name was first written
}

func (s skips) has(rule string, line int) bool {
	for _, l := range []int{0, line} {
		for _, name := range s.rules[l] {
			if strings.EqualFold(name, rule) || strings.EqualFold(name, "all") {
				return true
			}
		}
	}
	return false
}

// directives reads "# check=skip=RULE,RULE": among the directives at the top of
// a file it is for the file, as in BuildKit; further down, which BuildKit takes
// for a comment, for the next instruction.
func directives(f *frontend.File) skips {
	s := skips{make(map[int][]string), make(map[string]int)}
	top := true
	for i, line := range f.Lines {
		text, comment := strings.CutPrefix(strings.TrimSpace(line), "#")
		name, value, assigned := strings.Cut(text, "=")
		top = top && comment && assigned && !strings.ContainsAny(strings.TrimSpace(name), " \t")
		if !comment || !assigned || !strings.EqualFold(strings.TrimSpace(name), "check") {
			continue
		}
		at, ok := 0, true
		if !top {
			at, ok = nextInstruction(f, i+1)
		}
		if !ok {
			continue
		}
		for option := range strings.SplitSeq(value, ";") {
			key, list, _ := strings.Cut(option, "=")
			key = strings.TrimSpace(key)
			if key == "experimental" {
				s.named(list, i+1, func(string) {})
			}
			if !strings.EqualFold(key, "skip") {
				continue
			}
			s.named(list, i+1, func(rule string) { s.rules[at] = append(s.rules[at], rule) })
		}
	}
	return s
}

// named notes the names of a list.
func (s skips) named(list string, line int, each func(rule string)) {
	for rule := range strings.SplitSeq(list, ",") {
		rule = strings.TrimSpace(rule)
		if each(rule); s.lines[rule] == 0 {
			s.lines[rule] = line
		}
	}
}

// nextInstruction returns the line of the instruction that a comment in a line
// stands before; one within a heredoc is none.
func nextInstruction(f *frontend.File, line int) (int, bool) {
	for _, in := range f.Instructions {
		pos := in.Base().Pos
		if pos.Line > line {
			return pos.Line, true
		}
		if pos.End >= line {
			return pos.Line, len(f.Lines[pos.Line-1]) > 0 && !strings.Contains(f.Lines[pos.Line-1], "<<")
		}
	}
	return 0, false
}

func skipUnknown(p *pass) {
	all := slices.Concat(p.names, buildchecks.Unchecked, []string{"all"})
	for name, line := range p.skipped.lines {
		pos := frontend.Pos{File: p.file.Path, Line: line, End: line}
		i := slices.IndexFunc(all, func(r string) bool { return strings.EqualFold(r, name) })
		switch {
		case i < 0:
			p.report(&frontend.Meta{Pos: pos}, nil, "there is no rule "+name, "")
		case all[i] != name && slices.ContainsFunc(buildchecks.Rules(), func(r buildchecks.Rule) bool { return r.Name == all[i] }):
			p.report(&frontend.Meta{Pos: pos}, nil, "BuildKit knows the rule as "+all[i]+", in this spelling alone", "")
		}
	}
}
