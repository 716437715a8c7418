package lint

import (
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/buildchecks"
)

// withBuildChecks adds BuildKit's rules, which are found in a file as a whole.
func withBuildChecks(own []Rule) []Rule {
	for _, r := range buildchecks.Rules() {
		own = append(own, Rule{Name: r.Name, Level: Warning, Doc: r.Doc, URL: r.URL})
	}
	slices.SortFunc(own, func(a, b Rule) int { return strings.Compare(a.Name, b.Name) })
	return own
}

// aliases are rules of this package that find what a rule of BuildKit finds too. A line has
// one finding of the two, under BuildKit's name; either name turns it off.
var aliases = map[string]string{secretsRule: SecretRule}

// The names of BuildKit's rules that are more than a message here.
const (
	secretsRule   = "SecretsUsedInArgOrEnv"
	undefinedRule = "UndefinedVar"
)

var hints = map[string]string{
	secretsRule:   secretHint,
	undefinedRule: "ARG NAME before it declares it; a variable of the session may be missing elsewhere",
}

// sessionVars are what each session has.
var sessionVars = []string{"HOME", "PATH", "USER", "LOGNAME", "LANG", "TERM", "SHELL", "PWD", "TMPDIR", "HOSTNAME"}

func isSessionVar(name string) bool {
	upper := strings.ToUpper(name)
	return slices.Contains(sessionVars, name) || strings.HasPrefix(upper, "XDG_") || strings.HasPrefix(upper, "LC_") || strings.HasSuffix(upper, "_PROXY")
}

func syntaxAhead(p *pass) {
	if line, ahead := buildchecks.Syntax([]byte(p.file.Source)); ahead != "" {
		p.report(&frontend.Meta{Pos: frontend.Pos{File: p.file.Path, Line: line, End: line}}, nil, ahead, "")
	}
}

// buildChecks returns what BuildKit's rules find in a file.
func buildChecks(f *frontend.File, below func(name string) map[string]string, ignored []string) []Finding {
	args := f.Args()
	res := buildchecks.Find([]byte(f.Source), buildchecks.Options{
		BuildArgs: args.Build, Platform: args.Platform, Ignored: ignored, Below: below, Session: isSessionVar,
	})
	skipped := directives(f)
	level := Warning
	if res.Strict {
		level = Error
	}
	var all []Finding
	for _, found := range res.Findings {
		if alias := aliases[found.Rule]; alias != "" && skipped.has(alias, found.Line) {
			continue
		}
		line := f.Excerpt(found.Line)
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		hint := hints[found.Rule]
		if strings.HasSuffix(found.Message, "?)") {
			hint = "" // it says what was meant
		}
		all = append(all, Finding{
			Rule: found.Rule, Level: level, URL: found.URL, Pos: frontend.Pos{File: f.Path, Line: found.Line, End: found.End},
			Word: strings.ToUpper(word), Line: line, Message: found.Message, Hint: hint,
		})
	}
	if res.Invalid != nil {
		all = append(all, Finding{Rule: SkipRule, Level: Warning, Pos: frontend.Pos{File: f.Path, Line: 1, End: 1}, Line: f.Excerpt(1), Message: res.Invalid.Error()})
	}
	return all
}
