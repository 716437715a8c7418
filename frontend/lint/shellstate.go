package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/lazyregexp"
)

func shellStateLost(p *pass) {
	for _, r := range p.runs {
		if r.script == nil || r.script.last < 0 || r.Exec != nil {
			continue
		}
		c := &r.script.cmds[r.script.last]
		if len(c.words) < 2 {
			continue
		}
		switch what := c.words[0]; what {
		case "cd", "pushd":
			p.report(r.Base(), nil, what+" "+c.words[1]+" ends with this RUN: the next one begins in "+r.Dir, "WORKDIR "+c.words[1])
		case "source", ".", "alias":
			p.report(r.Base(), nil, what+" ends with this RUN: the next one knows nothing of it", "do it in the RUN that needs it; variables are set by ENV")
		}
	}
	// export is no simple command to a shell's grammar.
	for _, r := range p.runs {
		if r.script == nil || r.Command == "" {
			continue
		}
		if m := onlyExport().FindStringSubmatch(r.Command); m != nil {
			p.report(r.Base(), nil, "export "+m[1]+" ends with this RUN: the next one knows nothing of it", "ENV "+m[1]+"=...")
		}
	}
}

var onlyExport = lazyregexp.New(`^\s*export\s+([A-Za-z_][A-Za-z0-9_]*)=[^;&|\n]*$`)

// sessionVars are what each session has.
var sessionVars = []string{"HOME", "PATH", "USER", "LOGNAME", "LANG", "TERM", "SHELL", "PWD", "TMPDIR", "HOSTNAME"}

func undefinedVar(p *pass) {
	for _, use := range p.file.Unset(p.scope) {
		in := p.file.Instructions[slices.IndexFunc(p.file.Instructions, func(in frontend.Instruction) bool { return in.Base() == use.Instr })]
		if env, ok := in.(*frontend.Env); ok && slices.ContainsFunc(env.Vars, func(v frontend.Var) bool { return v.Name == use.Name }) {
			continue // ENV X=/opt:$X adds to what the session has
		}
		upper := strings.ToUpper(use.Name)
		if slices.Contains(sessionVars, use.Name) || strings.HasPrefix(upper, "XDG_") || strings.HasPrefix(upper, "LC_") || strings.HasSuffix(upper, "_PROXY") {
			continue
		}
		hint := fmt.Sprintf("ARG %s before it, or ${%s:-default}; a variable of the session may be missing elsewhere", use.Name, use.Name)
		if use.Nearest != "" {
			hint = "did you mean " + use.Nearest + "?"
		}
		p.report(use.Instr, nil, "$"+use.Name+" is set by no ARG or ENV before this line", hint)
	}
}
