// Package buildchecks finds in a Dockerfile what docker build --check finds: the rules of
// BuildKit, by its names and in its words.
//
// BuildKit calls its rules where it makes a build of a file. Here is only what they ask:
// which variables, stages and ports a line has. Both are compared on the same files by the
// test cmd/clayer/internal/oracle.
package buildchecks

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/patternmatcher"
)

// A Rule is one of BuildKit's.
type Rule struct {
	Name, Doc, URL string
	Experimental   bool // it is looked for only in files that name it: # check=experimental=NAME
}

// Rules are the rules that Find knows, by name. InvalidBaseImagePlatform is not among them:
// only a registry knows the platform of an image.
func Rules() []Rule {
	all := []Rule{
		ruleOf(linter.RuleStageNameCasing), ruleOf(linter.RuleFromAsCasing), ruleOf(linter.RuleNoEmptyContinuation),
		ruleOf(linter.RuleConsistentInstructionCasing), ruleOf(linter.RuleDuplicateStageName), ruleOf(linter.RuleReservedStageName),
		ruleOf(linter.RuleJSONArgsRecommended), ruleOf(linter.RuleMaintainerDeprecated), ruleOf(linter.RuleUndefinedArgInFrom),
		ruleOf(linter.RuleWorkdirRelativePath), ruleOf(linter.RuleUndefinedVar), ruleOf(linter.RuleMultipleInstructionsDisallowed),
		ruleOf(linter.RuleLegacyKeyValueFormat), ruleOf(linter.RuleRedundantTargetPlatform), ruleOf(linter.RuleSecretsUsedInArgOrEnv),
		ruleOf(linter.RuleInvalidDefaultArgInFrom), ruleOf(linter.RuleFromPlatformFlagConstDisallowed), ruleOf(linter.RuleCopyIgnoredFile),
		ruleOf(linter.RuleInvalidDefinitionDescription), ruleOf(linter.RuleExposeProtoCasing), ruleOf(linter.RuleExposeInvalidFormat),
	}
	slices.SortFunc(all, func(a, b Rule) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Unchecked are the names of BuildKit's rules that Find does not know.
var Unchecked = []string{linter.RuleInvalidBaseImagePlatform.Name}

func ruleOf[F any](r linter.LinterRule[F]) Rule {
	return Rule{r.Name, r.Description, r.URL, r.Experimental}
}

// A Finding is a place that a rule is about.
type Finding struct {
	Rule, URL, Message string
	Line, End          int // its first line and its last one
}

// Options are what decides beside the file.
type Options struct {
	BuildArgs map[string]string // --build-arg
	Platform  string            // that is built for: "linux/arm/v7"
	Ignored   []string          // the patterns of .dockerignore

	// Below returns the variables of the layer that FROM names, nil if it names an image.
	Below func(name string) map[string]string
	// Session reports whether a variable that no line sets has a value all the same.
	Session func(name string) bool
}

// A Result is what Find found. Strict says that the file asks for no findings
// (# check=error=true), and Invalid what is wrong with what it asks.
type Result struct {
	Findings []Finding
	Strict   bool
	Invalid  error
}

// configArg is the build argument that takes the place of "# check=".
const configArg = "BUILDKIT_DOCKERFILE_CHECK"

// Find looks at the text of a file. One that does not parse has no findings.
func Find(src []byte, opt Options) *Result {
	res := new(Result)
	file, err := parser.Parse(bytes.NewReader(src))
	if err != nil {
		return res
	}
	config, ok := opt.BuildArgs[configArg]
	if !ok {
		config, _, _, _ = parser.ParseDirective("check", src)
	}
	rules, err := linter.ParseLintOptions(config)
	if err != nil {
		res.Invalid = err
		return res
	}
	rules.Warn = func(rule, _, url, message string, at []parser.Range) {
		f := Finding{Rule: rule, URL: url, Message: message}
		for _, r := range at {
			f.Line, f.End = cmp.Or(f.Line, r.Start.Line), max(f.End, r.End.Line)
		}
		res.Findings = append(res.Findings, f)
	}
	c := &check{Options: opt, lint: linter.New(rules), lex: shell.NewLex(file.EscapeToken)}
	if len(opt.Ignored) > 0 {
		c.ignored, _ = patternmatcher.New(opt.Ignored) // who copies reports what is wrong with them
	}
	for _, w := range file.Warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL {
			c.lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	c.divide(file.AST.Children)
	c.stageNames()
	c.casing()
	c.froms()
	c.triggers()
	for _, s := range c.stages {
		c.dispatch(s)
	}
	res.Strict = c.lint.Error() != nil
	slices.SortStableFunc(res.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), strings.Compare(a.Rule, b.Rule), strings.Compare(a.Message, b.Message))
	})
	res.Findings = slices.Compact(res.Findings)
	return res
}

// A check is one file while it is looked at.
type check struct {
	Options
	lint    *linter.Linter
	lex     *shell.Lex
	ignored *patternmatcher.PatternMatcher
	args    []*instruction // the ARGs before the first FROM
	global  *variables     // what FROM lines see
	stages  []*stage
}

// An instruction is a line of a stage, as BuildKit's parser has it.
type instruction struct {
	*parser.Node
	args []string
	at   []parser.Range
}

func newInstruction(n *parser.Node) *instruction {
	return &instruction{n, argsOf(n), n.Location()}
}

// argsOf returns the arguments of an instruction; ONBUILD has those of the other one too.
func argsOf(n *parser.Node) (args []string) {
	for n = n.Next; n != nil; n = n.Next {
		switch len(n.Children) {
		case 0:
			args = append(args, n.Value)
		case 1:
			args = append(args, n.Children[0].Value)
			args = append(args, argsOf(n.Children[0])...)
		}
	}
	return args
}

// is reports whether an instruction is one of a name.
func (in *instruction) is(name string) bool { return strings.EqualFold(in.Value, name) }

// flag returns the value of a flag, "" without one.
func (in *instruction) flag(name string) string {
	for _, f := range in.Flags {
		if value, ok := strings.CutPrefix(f, "--"+name+"="); ok {
			return value
		}
	}
	return ""
}

// A variables holds variables in the order in which they were set last.
type variables struct {
	names  []string
	values map[string]string
}

func newVariables() *variables { return &variables{values: make(map[string]string)} }

func (v *variables) clone() *variables {
	w := newVariables()
	for _, name := range v.names {
		w.set(name, v.values[name])
	}
	return w
}

func (v *variables) set(name, value string) {
	if _, ok := v.values[name]; ok {
		v.names = slices.DeleteFunc(slices.Clone(v.names), func(n string) bool { return n == name })
	}
	v.names = append(v.names, name)
	v.values[name] = value
}

// Get and Keys are for BuildKit's lexer.
func (v *variables) Get(name string) (string, bool) {
	value, ok := v.values[name]
	return value, ok
}

// Keys returns the names.
func (v *variables) Keys() []string { return v.names }
