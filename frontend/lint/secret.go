package lint

import (
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// credential is what credentials look like, whatever they are called: those of
// GitHub, GitLab, AWS, Slack, Hugging Face, OpenAI and Anthropic, npm, PyPI,
// Google, and keys in PEM.
var credential = lazyregexp.New(`\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}|(AKIA|ASIA)[A-Z0-9]{16}|xox[abpr]-[A-Za-z0-9-]{10,}|hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}|AIza[A-Za-z0-9_-]{35})\b|-----BEGIN [A-Z ]*PRIVATE KEY-----`)

// header is a credential in a request that a RUN makes.
var header = lazyregexp.New(`(?i)authorization:\s*(bearer|basic|token)\s+([^\s"'$]{8,})`)

// userInfo is a password in a URL, but for a variable.
var userInfo = lazyregexp.New(`://[^/\s:@"'$]+:([^/\s@"'$]+)@`)

// assigned is a variable of a shell, or an option, that is called like a credential.
var assigned = lazyregexp.New(`(?i)(?:^|[\s;&|(])(?:export\s+)?(?:--)?([A-Z0-9_-]*(?:_TOKEN|_SECRET|_API_KEY|PASSWORD|PASSWD))=["']?([^\s"'$;&|]{6,})`)

const secretHint = "RUN --mount=type=secret,id=NAME,env=NAME"

func secretInFile(p *pass) {
	const hint = secretHint
	for _, in := range p.file.Instructions {
		m := in.Base()
		text := strings.Join(p.file.Lines[m.Pos.Line-1:m.Pos.End], "\n")
		name := ""
		switch in := in.(type) {
		case *frontend.Env:
			for _, v := range in.Vars {
				if isSecretName(v.Name) && isLiteral(v.Value) {
					name = v.Name
				}
			}
		case *frontend.Arg:
			for _, d := range in.Args {
				if d.Default != nil && isSecretName(d.Name) && isLiteral(*d.Default) {
					name = d.Name
				}
			}
		case *frontend.Run:
			if a := assigned().FindStringSubmatch(text); a != nil {
				name = a[1]
			}
		case *frontend.Ignored:
			continue
		}
		if slices.ContainsFunc(p.buildChecks, func(f Finding) bool { return f.Rule == secretsRule && f.Pos.Line == m.Pos.Line }) {
			continue
		}
		switch {
		case name != "":
			p.report(m, nil, "the value of "+name+" stands in the file: it is in every clone of it", hint)
		case credential().MatchString(text):
			p.report(m, nil, "a credential stands in the file: it is in every clone of it; it should be revoked", hint)
		case header().MatchString(text):
			p.report(m, nil, "a credential for a request stands in the file", hint)
		case userInfo().MatchString(text):
			p.report(m, nil, "a password in a URL stands in the file", hint)
		}
	}
}

// hide takes lines with a credential out of all findings.
func hide(all []Finding) {
	type line struct {
		file string
		line int
	}
	secret := make(map[line]bool)
	for _, f := range all {
		if f.Rule == SecretRule || f.Rule == secretsRule {
			secret[line{f.Pos.File, f.Pos.Line}] = true
		}
	}
	for i, f := range all {
		if secret[line{f.Pos.File, f.Pos.Line}] {
			all[i].Line = f.Word + " …"
		}
	}
}

func isSecretName(name string) bool {
	name = strings.ToUpper(name)
	for _, end := range []string{"_TOKEN", "_SECRET", "_API_KEY", "_ACCESS_KEY", "_SECRET_KEY", "_PRIVATE_KEY", "_PASSPHRASE"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return strings.Contains(name, "PASSWORD") || strings.HasSuffix(name, "PASSWD")
}

// isLiteral reports whether a value is one, and no reference, path or switch.
func isLiteral(value string) bool {
	value = strings.Trim(value, `"'`)
	return len(value) >= 4 && !strings.HasPrefix(value, "$") && !strings.HasPrefix(value, "/") && value != "true" && value != "false"
}
