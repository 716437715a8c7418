// Package lint looks for what is allowed in a Containerfile and yet goes wrong,
// costs time or space, or has no effect. It is pure: it looks at files alone.
package lint

import (
	"cmp"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/order"
)

// Level says how much a finding matters.
type Level string

// The levels.
const (
	Error   Level = "error"   // the file can't be used
	Warning Level = "warning" // it will go wrong, or surprise
	Note    Level = "note"    // it works, and costs something
)

// A Rule is one thing that is looked for.
type Rule struct {
	Name  string // as in "# check=skip=NAME"
	Level Level
	Doc   string        // one sentence: what is wrong, and why that matters
	URL   string        // of its documentation; "" means docs/check.md
	find  func(p *pass) // nil for a rule of BuildKit
}

// A Finding is a place in a file that a rule is about.
type Finding struct {
	Rule    string
	Level   Level
	URL     string // of the rule's documentation; "" means docs/check.md
	Pos     frontend.Pos
	Word    string // the instruction
	Line    string // the line itself, fit to be shown
	Message string
	Hint    string // what to do; "" where the message says it
	Fix     *Fix   // nil where nothing is safe to change
}

// A Fix is a change that leaves the environment what its writer intends.
type Fix struct {
	What  string // in words, "add -y"
	Edits []Edit
}

// An Edit replaces text. Lines and columns count from 1, columns in bytes;
// the end is exclusive.
type Edit struct {
	Line, Column, EndLine, EndColumn int
	Text                             string
}

// Check looks at files, which may name one another by FROM. ignored returns the patterns of
// files that a file does not copy; it may be nil. The findings are in order of file, line
// and rule.
func Check(files []*frontend.File, ignored func(*frontend.File) []string) []Finding {
	var all []Finding
	scopes := make(map[*frontend.File]*frontend.Scope)
	var found []Finding // by BuildKit's rules
	check := func(f *frontend.File) {
		known := append(slices.Clip(files), f.Below...)
		p := newPass(f, scopeBelow(f, known, scopes))
		p.files, p.buildChecks = known, found
		for _, r := range Rules {
			p.names = append(p.names, r.Name)
		}
		for _, r := range Rules {
			if p.rule = r; r.find != nil {
				r.find(p)
			}
		}
		all = append(all, p.findings...)
	}
	for _, f := range files {
		var patterns []string
		if ignored != nil {
			patterns = ignored(f)
		}
		known := slices.Clone(files)
		for _, stage := range append(slices.Clip(f.Stages()), f) {
			known = append(known, stage.Below...)
		}
		found = buildChecks(f, func(name string) map[string]string { return envOf(name, f, known, scopes) }, patterns)
		all = append(all, found...)
		used := make(map[*frontend.File]bool)
		markUsed(f, used)
		for _, stage := range f.Stages() {
			if used[stage] {
				check(stage)
			}
		}
		check(f)
	}
	hide(all)
	order.Stable(all, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line), strings.Compare(a.Rule, b.Rule), strings.Compare(a.Message, b.Message))
	})
	// A line of a stage is a line of those that build on it too.
	return slices.CompactFunc(all, func(a, b Finding) bool { return a.Pos == b.Pos && a.Rule == b.Rule && a.Message == b.Message })
}

// markUsed marks the stages that a file, or one of its stages, builds on, copies from or mounts.
func markUsed(f *frontend.File, used map[*frontend.File]bool) {
	for on := f.On; on != nil; on = on.On {
		used[on] = true
	}
	for _, in := range f.Instructions {
		for _, s := range frontend.Uses(in) {
			if !used[s] {
				used[s] = true
				markUsed(s, used)
			}
		}
	}
}

// Syntax returns what doesn't parse as findings, for editors and such.
func Syntax(ps frontend.Problems) []Finding { return problems(syntaxRule, ps) }

// Refused returns as findings what parses, and can't be solved.
func Refused(ps frontend.Problems) []Finding { return problems(refusedRule, ps) }

func problems(r Rule, ps frontend.Problems) []Finding {
	var all []Finding
	for _, p := range ps {
		message := p.Message
		if p.Detail != "" {
			message += ": " + p.Detail
		}
		all = append(all, Finding{Rule: r.Name, Level: r.Level, Pos: p.Pos, Word: p.Word, Line: p.Line, Message: message, Hint: p.Hint})
	}
	return all
}

// What makes a file useless has names as rules have, which can't be skipped.
var (
	syntaxRule  = Rule{Name: "Syntax", Level: Error, Doc: "The file does not parse."}
	refusedRule = Rule{Name: "Refused", Level: Error, Doc: "plan and solve reject the line."}
)

// scopeBelow returns what is in effect where the file begins: what FROM sets.
func scopeBelow(f *frontend.File, files []*frontend.File, known map[*frontend.File]*frontend.Scope) frontend.Scope {
	for _, in := range f.Instructions {
		from, ok := in.(*frontend.From)
		if !ok {
			continue
		}
		i := slices.IndexFunc(files, func(g *frontend.File) bool { return g.Name == from.Image && g != f })
		if i < 0 {
			break
		}
		base := files[i]
		if known[base] == nil {
			known[base] = &frontend.Scope{} // a cycle ends here; solve reports it
			_, scope, _ := base.Resolve(scopeBelow(base, files, known))
			scope.Args = nil
			known[base] = &scope
		}
		return *known[base]
	}
	return frontend.Scope{}
}

// envOf returns the variables of the layer that FROM names in a file; nil if it names none.
func envOf(name string, f *frontend.File, files []*frontend.File, known map[*frontend.File]*frontend.Scope) map[string]string {
	i := slices.IndexFunc(files, func(g *frontend.File) bool { return g.Name == name && g != f })
	if i < 0 {
		return nil
	}
	_, scope, _ := files[i].Resolve(scopeBelow(files[i], files, known))
	env := make(map[string]string)
	for _, v := range scope.Env {
		env[v.Name] = v.Value
	}
	return env
}

// A pass is one file while rules look at it.
type pass struct {
	file     *frontend.File
	files    []*frontend.File // that FROM may name
	scope    frontend.Scope
	rule     Rule
	names    []string // of all rules
	runs     []*run
	skipped  skips
	findings []Finding

	buildChecks []Finding // what BuildKit's rules find in the file
}

// A run is a RUN with its commands.
type run struct {
	*frontend.Run         // resolved where that is possible
	script        *script // nil where it is for no shell that is known
	index         int     // in File.Instructions
}

func newPass(f *frontend.File, scope frontend.Scope) *pass {
	p := &pass{file: f, scope: scope, skipped: directives(f)}
	resolved := make(map[int]*frontend.Run)
	list, _, _ := f.Resolve(scope) // a solve of the file reports its errors
	for _, in := range list {
		if r, ok := in.(*frontend.Run); ok {
			resolved[r.Pos.Line] = r
		}
	}
	for i, in := range f.Instructions {
		r, ok := in.(*frontend.Run)
		if !ok {
			continue
		}
		if full := resolved[r.Pos.Line]; full != nil {
			r = full
		}
		p.runs = append(p.runs, &run{Run: r, script: readScript(f, r), index: i})
	}
	return p
}

// report adds a finding of the current rule, unless the file skips it there.
func (p *pass) report(m *frontend.Meta, fix *Fix, message, hint string) {
	if p.skipped.has(p.rule.Name, m.Pos.Line) {
		return
	}
	p.findings = append(p.findings, Finding{
		Rule: p.rule.Name, Level: p.rule.Level, Pos: m.Pos, Word: m.Word, Line: p.file.Excerpt(m.Pos.Line),
		Message: message, Hint: hint, Fix: fix,
	})
}
