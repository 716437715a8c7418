package edit

import (
	"strings"
	"unicode"

	"mvdan.cc/sh/v3/syntax"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// plainWord is a word that means itself to every shell, after the first of a
// command: syntax.Quote would quote a==1 too, which there is an assignment.
var plainWord = lazyregexp.New(`^[A-Za-z0-9_@%+=:,./-]+$`)

// Quote writes words as a POSIX shell, and a Containerfile's line, read them
// back. ok is false for a word that can't stand on a line.
func Quote(words []string) (text string, ok bool) {
	quoted := make([]string, len(words))
	for i, w := range words {
		if strings.ContainsFunc(w, unicode.IsControl) {
			return "", false
		}
		if plainWord().MatchString(w) {
			quoted[i] = w
			continue
		}
		q, err := syntax.Quote(w, syntax.LangPOSIX)
		if err != nil {
			return "", false
		}
		quoted[i] = q
	}
	return strings.Join(quoted, " "), true
}

// commands returns the command lines of a shell script, as far as their words
// are known without running it: those that hold a substitution or a variable are
// left out, and so are those that may not run, as after || or in an if.
func commands(script string) [][]string {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(script), "")
	if err != nil {
		return nil
	}
	var list [][]string
	var walk func(stmt *syntax.Stmt)
	walk = func(stmt *syntax.Stmt) {
		if stmt.Negated || stmt.Background {
			return
		}
		switch cmd := stmt.Cmd.(type) {
		case *syntax.BinaryCmd:
			walk(cmd.X)
			if cmd.Op == syntax.AndStmt {
				walk(cmd.Y)
			}
		case *syntax.CallExpr:
			if words, ok := literals(cmd.Args); ok && len(words) > 0 {
				list = append(list, words)
			}
		}
	}
	for _, stmt := range file.Stmts {
		walk(stmt)
	}
	return list
}

// literals returns the words without their quotes, if they are the same in
// every session.
func literals(words []*syntax.Word) ([]string, bool) {
	var list []string
	for _, w := range words {
		text, ok := literal(w.Parts, false)
		if !ok {
			return nil, false
		}
		list = append(list, text)
	}
	return list, true
}

func literal(parts []syntax.WordPart, quoted bool) (string, bool) {
	var b strings.Builder
	for _, part := range parts {
		switch p := part.(type) {
		case *syntax.Lit:
			// [extra] of a Python package is a pattern too, and stays as it is
			// as long as no file has such a name.
			if !quoted && strings.ContainsAny(unescaped(p.Value), "*?~{") {
				return "", false
			}
			b.WriteString(unescape(p.Value, quoted))
		case *syntax.SglQuoted:
			if p.Dollar {
				return "", false
			}
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			text, ok := literal(p.Parts, true)
			if !ok || p.Dollar {
				return "", false
			}
			b.WriteString(text)
		default:
			return "", false
		}
	}
	return b.String(), true
}

// unescape removes the backslashes of an unquoted literal, and within double
// quotes those that are special there.
func unescape(s string, quoted bool) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (!quoted || strings.IndexByte("$`\"\\\n", s[i+1]) >= 0) {
			i++
			if s[i] == '\n' {
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// unescaped returns s without what a backslash takes its meaning from.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
