package buildchecks

import (
	"encoding/csv"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"

	"github.com/clayer/clayer/frontend/metadata"
)

// searchPath is what BuildKit sets in images that have no PATH.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// dispatch looks at the instructions of a stage, with what is in effect at each.
func (c *check) dispatch(s *stage) {
	s.env, s.last, s.image = newVariables(), make(map[string][]parser.Range), s.from != nil
	s.env.set("PATH", searchPath)
	if s.on != nil {
		s.env, s.declared, s.workdir = s.on.env.clone(), slices.Clone(s.on.declared), s.on.workdir
		s.shell, s.image, s.config = s.on.shell, s.on.image, slices.Clone(s.on.config)
		for _, v := range s.config { // an ENV comes before an ARG of its name again
			s.env.set(v.name, v.value)
		}
	} else if s.image && c.Below != nil {
		if vars := c.Below(s.base); vars != nil {
			s.image = false
			for _, name := range slices.Sorted(maps.Keys(vars)) {
				s.env.set(name, vars[name])
			}
		}
	}
	for _, in := range slices.Concat(s.triggers, s.commands) {
		l := &line{check: c, stage: s, in: in, lint: c.lint.WithMergedConfigFromComments(in.PrevComment)}
		l.look()
	}
}

// A line is an instruction while it is looked at.
type line struct {
	*check
	stage *stage
	in    *instruction
	lint  *linter.Linter
}

func (l *line) look() {
	in, s := l.in, l.stage
	switch word := strings.ToUpper(in.Value); word {
	case "ENV", "LABEL":
		l.pairs(word)
	case "ARG":
		l.arg()
	case "RUN":
		for _, fields := range mounts(in) {
			for _, f := range fields {
				if _, value, ok := strings.Cut(f, "="); ok {
					l.expand(value)
				}
			}
		}
	case "COPY", "ADD":
		l.copy(word)
	case "WORKDIR":
		dir := l.expand(strings.Join(in.args, " "))
		if !s.workdir && !path.IsAbs(dir) {
			l.lint.Run(&linter.RuleWorkdirRelativePath, in.at, linter.RuleWorkdirRelativePath.Format(dir))
		}
		s.workdir = true
	case "USER", "STOPSIGNAL", "VOLUME":
		for _, arg := range in.args {
			l.expand(arg)
		}
	case "SHELL":
		s.shell = len(in.args) > 0
	case "CMD", "ENTRYPOINT":
		l.once(word)
		if !in.Attributes["json"] && !s.shell {
			l.lint.Run(&linter.RuleJSONArgsRecommended, in.at, linter.RuleJSONArgsRecommended.Format(in.Value))
		}
	case "HEALTHCHECK":
		l.once(word)
	case "EXPOSE":
		l.expose()
	case "FETCH", "SNAPSHOT": // of which BuildKit's parser knows the word alone
		for _, arg := range strings.Fields(in.Original)[1:] {
			l.expand(arg)
		}
	}
}

// expand returns a word with its variables expanded.
func (l *line) expand(word string) string {
	out, unset, _ := l.lex.ProcessWord(word, l.stage.env)
	l.undefined(unset)
	return out
}

// undefined reports variables that nothing has set.
func (l *line) undefined(names map[string]struct{}) {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch {
		case slices.Contains(l.stage.declared, name), name == "BUILDKIT_SBOM_SCAN_CONTEXT", name == "BUILDKIT_SBOM_SCAN_STAGE":
			continue
		case l.Session != nil && l.Session(name):
			continue
		case !l.stage.image && (l.in.is("ENV") && slices.Contains(keys(l.in), name) || hasFallback(l.in, name)):
			continue // ENV X=/opt:$X adds to what the session has
		}
		near, _ := suggest.Search(name, l.stage.env.Keys(), true)
		l.lint.Run(&linter.RuleUndefinedVar, l.in.at, linter.RuleUndefinedVar.Format(name, near))
	}
}

// hasFallback reports whether an instruction says what to do without a variable.
func hasFallback(in *instruction, name string) bool {
	return slices.ContainsFunc([]string{":-", ":+", ":?", "-", "+", "?"}, func(form string) bool {
		return strings.Contains(in.Original, "${"+name+form)
	})
}

// keys returns the names of an ENV as they are written.
func keys(in *instruction) (names []string) {
	for i := 0; i < len(in.args); i += 3 {
		names = append(names, in.args[i])
	}
	return names
}

// A pair is a variable with its value, or a label.
type pair struct{ name, value string }

// pairs is for ENV and LABEL, of which BuildKit's parser makes triples: name, value, separator.
func (l *line) pairs(word string) {
	var all []pair
	for args := l.in.args; len(args) >= 3; args = args[3:] {
		all = append(all, pair{l.expand(args[0]), l.expand(args[1])})
	}
	for i, p := range all {
		if l.in.args[3*i+2] == "" {
			l.lint.Run(&linter.RuleLegacyKeyValueFormat, l.in.at, linter.RuleLegacyKeyValueFormat.Format(l.in.Value))
		}
		if word == "ENV" {
			l.secret(word, p.name, l.in.args[3*i+1])
			l.stage.env.set(p.name, p.value)
			if at := slices.IndexFunc(l.stage.config, func(v pair) bool { return v.name == p.name }); at >= 0 {
				l.stage.config[at].value = p.value
			} else {
				l.stage.config = append(l.stage.config, p)
			}
		}
	}
}

// secret reports a variable that is called like a credential. On the machine itself a
// reference to one of the session's is none: neither a key nor a snapshot has its value.
func (l *line) secret(word, name, value string) {
	if isSecret(name) && (l.stage.image || value != "" && !strings.Contains(value, "$")) {
		l.lint.Run(&linter.RuleSecretsUsedInArgOrEnv, l.in.at, linter.RuleSecretsUsedInArgOrEnv.Format(word, name))
	}
}

func (l *line) arg() {
	for _, arg := range l.in.args {
		name, value, ok := strings.Cut(arg, "=")
		l.secret("ARG", name, value)
		if given, is := l.BuildArgs[name]; is {
			value, ok = given, true
		} else if ok {
			value = l.expand(value)
		} else {
			value, ok = l.global.Get(name)
		}
		if ok {
			l.stage.env.set(name, value)
		}
		l.stage.declared = append(l.stage.declared, name)
	}
}

// mounts returns the fields of each --mount of a RUN.
func mounts(in *instruction) (all [][]string) {
	for _, f := range in.Flags {
		value, ok := strings.CutPrefix(f, "--mount=")
		if !ok {
			continue
		}
		if fields, err := csv.NewReader(strings.NewReader(value)).Read(); err == nil {
			all = append(all, fields)
		}
	}
	return all
}

func (l *line) copy(word string) {
	in := l.in
	for _, name := range []string{"chown", "chmod", "checksum"} {
		if name != "checksum" || word == "ADD" {
			l.expand(in.flag(name))
		}
	}
	var files, texts []string
	for i, arg := range in.args {
		h := parser.MustParseHeredoc(arg)
		switch {
		case i == len(in.args)-1:
		case h == nil:
			files = append(files, l.expand(arg))
		case h.Expand:
			at := slices.IndexFunc(in.Heredocs, func(d parser.Heredoc) bool { return d.Name == h.Name })
			if at >= 0 {
				texts = append(texts, in.Heredocs[at].Content)
			}
		}
	}
	if len(in.args) > 0 {
		l.expand(in.args[len(in.args)-1])
	}
	for _, text := range texts {
		lex := shell.NewLex('\\') // whatever the file's is
		lex.SkipProcessQuotes = true
		_, unset, _ := lex.ProcessWord(text, l.stage.env)
		l.undefined(unset)
	}
	if l.ignored == nil || l.ignored.Exclusions() || in.flag("from") != "" {
		return
	}
	for _, file := range files {
		if isRemote(file) {
			continue
		}
		if file = path.Clean(file); file == "." || file == "/" {
			if !l.allIgnored() {
				continue
			}
		}
		if is, err := l.ignored.MatchesOrParentMatches(file); err == nil && is {
			l.lint.Run(&linter.RuleCopyIgnoredFile, in.at, linter.RuleCopyIgnoredFile.Format(word[:1]+strings.ToLower(word[1:]), file))
		}
	}
}

func isRemote(source string) bool {
	return slices.ContainsFunc([]string{"http://", "https://", "git://", "git@", "ssh://"}, func(p string) bool { return strings.HasPrefix(source, p) })
}

// allIgnored reports whether a pattern stands for all that the context has.
func (c *check) allIgnored() bool {
	for _, p := range c.ignored.Patterns() {
		if slices.Contains([]string{"*", "**", "**/*"}, p.String()) && !p.Exclusion() {
			return true
		}
	}
	return false
}

// once reports the line before of a word, which has no effect then.
func (l *line) once(word string) {
	if at, ok := l.stage.last[word]; ok {
		l.lint.Run(&linter.RuleMultipleInstructionsDisallowed, at, linter.RuleMultipleInstructionsDisallowed.Format(l.in.Value))
	}
	l.stage.last[word] = l.in.at
}

func (l *line) expose() {
	args := slices.Sorted(slices.Values(l.in.args))
	for _, arg := range args {
		words, err := l.lex.ProcessWords(arg, l.stage.env)
		if err != nil {
			return
		}
		for _, w := range words {
			p := metadata.SplitPort(w)
			if p.Protocol != strings.ToLower(p.Protocol) {
				l.lint.Run(&linter.RuleExposeProtoCasing, l.in.at, linter.RuleExposeProtoCasing.Format(w))
			}
			if p.Address != "" || p.Host != "" {
				l.lint.Run(&linter.RuleExposeInvalidFormat, l.in.at, linter.RuleExposeInvalidFormat.Format(w))
			}
		}
	}
}
