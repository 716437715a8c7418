package lint

import "github.com/clayer/clayer/internal/lazyregexp"

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
