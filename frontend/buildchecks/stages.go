package buildchecks

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"

	"github.com/clayer/clayer/frontend/metadata"
	"github.com/clayer/clayer/frontend/predefined"
)

// A stage is what is from one FROM to the next.
type stage struct {
	from     *instruction // nil in a file without FROM
	name     string
	base     string // its variables expanded
	on       *stage // that base names
	commands []*instruction
	triggers []*instruction // of the ONBUILDs of the stage that it builds on

	// What is in effect at a command.
	env      *variables
	config   []pair   // the ENVs, in order of their first
	declared []string // ARGs
	shell    bool     // a SHELL was there
	workdir  bool     // a WORKDIR was there
	image    bool     // it builds on an image
	last     map[string][]parser.Range
}

// divide splits the file into stages. What has no FROM before it is a stage of its own: it is
// what a layer is made of that builds on the machine.
func (c *check) divide(nodes []*parser.Node) {
	plain := !slices.ContainsFunc(nodes, func(n *parser.Node) bool { return strings.EqualFold(n.Value, "FROM") })
	for _, n := range nodes {
		in := newInstruction(n)
		lint := c.lint.WithMergedConfigFromComments(n.PrevComment)
		switch {
		case in.is("FROM"):
			c.from(in, lint)
			continue
		case in.is("MAINTAINER"):
			lint.Run(&linter.RuleMaintainerDeprecated, in.at, linter.RuleMaintainerDeprecated.Format())
		case in.is("ARG"):
			c.described(in, "ARG", namesOf(in), lint)
			if len(c.stages) == 0 && !plain {
				c.args = append(c.args, in)
				continue
			}
		}
		if len(c.stages) == 0 {
			c.stages = append(c.stages, &stage{})
		}
		last := c.stages[len(c.stages)-1]
		last.commands = append(last.commands, in)
	}
}

func (c *check) from(in *instruction, lint *linter.Linter) {
	s := &stage{from: in}
	if len(in.args) > 0 {
		s.base = in.args[0]
	}
	if len(in.args) == 3 {
		if as := in.args[2]; as != strings.ToLower(as) {
			lint.Run(&linter.RuleStageNameCasing, in.at, linter.RuleStageNameCasing.Format(as))
		}
		as, lower := in.args[1], strings.ToLower(in.Value) == in.Value
		if lower && as != strings.ToLower(as) || strings.ToUpper(in.Value) == in.Value && as != strings.ToUpper(as) {
			lint.Run(&linter.RuleFromAsCasing, in.at, linter.RuleFromAsCasing.Format(in.Value, as))
		}
		if strings.EqualFold(as, "as") {
			s.name = strings.ToLower(in.args[2])
			c.described(in, "FROM", []string{s.name}, lint)
		}
	}
	c.stages = append(c.stages, s)
}

// described looks at the comment above a name, which describes it.
func (c *check) described(in *instruction, word string, names []string, lint *linter.Linter) {
	if len(in.PrevComment) == 0 || len(names) == 0 {
		return
	}
	first, _, _ := strings.Cut(in.PrevComment[len(in.PrevComment)-1], " ")
	if slices.Contains(names, first) {
		return
	}
	name := names[0]
	if len(names) > 1 {
		name = "<arg_key>"
	}
	lint.Run(&linter.RuleInvalidDefinitionDescription, in.at, linter.RuleInvalidDefinitionDescription.Format(word, name))
}

// namesOf returns the names of an ARG.
func namesOf(in *instruction) (names []string) {
	for _, arg := range in.args {
		name, _, _ := strings.Cut(arg, "=")
		names = append(names, name)
	}
	return names
}

// reserved are the names that --from has for itself.
var reserved = []string{"context", "scratch"}

func (c *check) stageNames() {
	seen := make(map[string]bool)
	for _, s := range c.stages {
		if s.name == "" {
			continue
		}
		if slices.Contains(reserved, s.name) {
			c.lint.Run(&linter.RuleReservedStageName, s.from.at, linter.RuleReservedStageName.Format(s.name))
		}
		if seen[s.name] {
			c.lint.Run(&linter.RuleDuplicateStageName, s.from.at, linter.RuleDuplicateStageName.Format(s.name))
		}
		seen[s.name] = true
	}
}

// casing looks for words that are written otherwise than most.
func (c *check) casing() {
	var all []*instruction
	for _, s := range c.stages {
		if s.from != nil {
			all = append(all, s.from)
		}
		all = append(all, s.commands...)
	}
	isLower := func(in *instruction) bool { return in.Value == strings.ToLower(in.Value) }
	isUpper := func(in *instruction) bool { return in.Value == strings.ToUpper(in.Value) }
	lower, upper := 0, 0
	for _, in := range all {
		switch {
		case isLower(in):
			lower++
		case isUpper(in):
			upper++
		}
	}
	for _, in := range all {
		right, as := isUpper(in), "uppercase"
		if lower > upper {
			right, as = isLower(in), "lowercase"
		}
		if !right {
			c.lint.Run(&linter.RuleConsistentInstructionCasing, in.at, linter.RuleConsistentInstructionCasing.Format(in.Value, as))
		}
	}
}

// froms looks at the FROM lines, and finds out which stage each names.
func (c *check) froms() {
	target := ""
	if len(c.stages) > 0 {
		target = c.stages[len(c.stages)-1].name
	}
	initial := newVariables()
	for _, name := range predefined.Names() {
		value, ok := c.BuildArgs[name]
		if !ok {
			value, _ = predefined.Value(name, c.Platform, target)
		}
		initial.set(name, value)
	}
	c.global = c.globalArgs(initial, c.BuildArgs)
	defaults := c.globalArgs(initial, nil)
	known := slices.Clone(c.global.names)
	for _, in := range c.args {
		known = append(known, namesOf(in)...)
	}
	for i, s := range c.stages {
		if s.from == nil {
			continue
		}
		if r, err := c.lex.ProcessWordWithMatches(s.base, defaults); err == nil && !isReference(r.Result) {
			c.lint.Run(&linter.RuleInvalidDefaultArgInFrom, s.from.at, linter.RuleInvalidDefaultArgInFrom.Format(s.base))
		}
		lint := c.lint.WithMergedConfigFromComments(s.from.PrevComment)
		undefined := func(names map[string]struct{}) {
			for _, name := range slices.Sorted(maps.Keys(names)) {
				if slices.Contains(known, name) {
					continue
				}
				near, _ := suggest.Search(name, known, true)
				lint.Run(&linter.RuleUndefinedArgInFrom, s.from.at, linter.RuleUndefinedArgInFrom.Format(name, near))
			}
		}
		r, _ := c.lex.ProcessWordWithMatches(s.base, c.global)
		undefined(r.Unmatched)
		s.base = r.Result
		s.on = c.find(s.base, i)
		platform := s.from.flag("platform")
		if platform == "" {
			continue
		}
		r, _ = c.lex.ProcessWordWithMatches(platform, c.global)
		undefined(r.Unmatched)
		_, isTarget := r.Matched["TARGETPLATFORM"]
		switch {
		case len(r.Matched) == 1 && len(r.Unmatched) == 0 && isTarget && r.Result == c.global.values["TARGETPLATFORM"]:
			lint.Run(&linter.RuleRedundantTargetPlatform, s.from.at, linter.RuleRedundantTargetPlatform.Format(platform))
		case len(r.Matched) == 0 && len(r.Unmatched) == 0:
			os, arch, ok := predefined.Parse(r.Result)
			if ok && !strings.Contains(s.name, os) && !strings.Contains(s.name, arch) {
				lint.Run(&linter.RuleFromPlatformFlagConstDisallowed, s.from.at, linter.RuleFromPlatformFlagConstDisallowed.Format(r.Result))
			}
		}
	}
}

// globalArgs returns what is in effect after the ARGs before the first FROM.
func (c *check) globalArgs(initial *variables, given map[string]string) *variables {
	v := initial.clone()
	for _, in := range c.args {
		for _, arg := range in.args {
			name, value, ok := strings.Cut(arg, "=")
			if set, isGiven := given[name]; isGiven {
				value, ok = set, true
			} else if ok {
				value, _, _ = c.lex.ProcessWord(value, v)
			}
			if ok {
				v.set(name, value)
			}
		}
	}
	return v
}

// find returns the last stage of a name before the one of a number.
func (c *check) find(name string, before int) *stage {
	for _, s := range slices.Backward(c.stages[:before]) {
		if s.name != "" && s.name == name {
			return s
		}
	}
	return nil
}

// triggers gives the stages that the last one needs the ONBUILDs of those that they build on.
func (c *check) triggers() {
	if len(c.stages) == 0 {
		return
	}
	needed := []*stage{c.stages[len(c.stages)-1]}
	add := func(s *stage) {
		if s != nil && !slices.Contains(needed, s) {
			needed = append(needed, s)
		}
	}
	for i := 0; i < len(needed); i++ {
		s := needed[i]
		if s.on != nil {
			add(s.on)
			for _, in := range s.on.commands {
				if t := triggered(in); t != nil {
					t.at = s.from.at
					s.triggers = append(s.triggers, t)
				}
			}
		}
		for _, in := range slices.Concat(s.triggers, s.commands) {
			for _, name := range sources(in) {
				name = strings.ToLower(name)
				if number, err := strconv.Atoi(name); err == nil && number >= 0 && number < len(c.stages) {
					add(c.stages[number])
					continue
				}
				add(c.find(name, len(c.stages)))
			}
		}
	}
}

// triggered returns the instruction of an ONBUILD.
func triggered(in *instruction) *instruction {
	if !in.is("ONBUILD") {
		return nil
	}
	var text strings.Builder
	text.WriteString(metadata.Trigger(in.Original))
	for _, h := range in.Heredocs {
		text.WriteString("\n" + h.Content + h.Name)
	}
	file, err := parser.Parse(strings.NewReader(text.String()))
	if err != nil || len(file.AST.Children) != 1 {
		return nil
	}
	return newInstruction(file.AST.Children[0])
}

// sources returns the stages that an instruction names.
func sources(in *instruction) (names []string) {
	switch {
	case in.is("COPY"):
		names = append(names, in.flag("from"))
	case in.is("RUN"):
		for _, fields := range mounts(in) {
			for _, f := range fields {
				if name, ok := strings.CutPrefix(f, "from="); ok {
					names = append(names, name)
				}
			}
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}
