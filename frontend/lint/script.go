package lint

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// A script is what a RUN says, as a shell reads it.
type script struct {
	cmds  []command
	last  int  // in cmds: the command that ends the script, -1 for none
	chain bool // it is nothing but commands joined by "&&"
}

// A command is a simple command of a script.
type command struct {
	words  []string // as a shell gives them to the program, but variables unexpanded
	writes []string // the files that its output is redirected to
	chain  bool     // it is a member of a chain of "&&", and of nothing else

	// Where it stands in the file; nil where that is not known.
	at   *Edit  // its beginning and its end
	ends []Edit // of each word: nothing, after it
}

// wrappers run the command that follows them.
var wrappers = []string{"sudo", "env", "time", "nice", "exec", "command", "eatmydata"}

// args returns the program's name, without its directory, and its arguments.
func (c *command) args() (name string, args []string, at int) {
	words := c.words
	for len(words) > 1 && slices.Contains(wrappers, words[0]) {
		words = words[1:]
		for len(words) > 1 && (strings.HasPrefix(words[0], "-") || strings.Contains(words[0], "=")) {
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return "", nil, 0
	}
	return path.Base(words[0]), words[1:], len(c.words) - len(words)
}

// Commands returns the simple commands of a RUN, also those that may not come to
// run: of each the program's name, without its directory, and its arguments, with
// variables as they stand. There are none where the RUN is for no shell that is
// known.
func Commands(r *frontend.Run) [][]string {
	s := parseRun(r)
	if s == nil {
		return nil
	}
	var list [][]string
	for i := range s.cmds {
		if name, args, _ := s.cmds[i].args(); name != "" {
			list = append(list, append([]string{name}, args...))
		}
	}
	return list
}

// readScript parses a RUN of a file, and finds where its commands stand.
func readScript(f *frontend.File, r *frontend.Run) *script {
	s := parseRun(r)
	if s != nil && r.Exec == nil && r.Script == "" {
		s.locate(f, r)
	}
	return s
}

// parseRun parses a RUN; nil where it is for no shell that is known.
func parseRun(r *frontend.Run) *script {
	switch {
	case r.Exec != nil:
		return &script{cmds: []command{{words: r.Exec}}, last: 0}
	case r.Script != "":
		line, _, _ := strings.Cut(r.Script, "\n")
		if !shellLine().MatchString(line) {
			return nil
		}
		return parseScript(r.Script)
	case len(r.Shell) > 0 && !shellLine().MatchString("/"+strings.TrimPrefix(r.Shell[0], "/")):
		return nil
	}
	return parseScript(r.Command)
}

var shellLine = lazyregexp.New(`/(env\s+(-\S+\s+)*)?(ba|da|a|z|k)?sh\b`)

// The parser goes down as deep as a script does, and takes a quadratic time to
// distinguish some parentheses: unusual ones are not read.
const (
	maxScript = 64 << 10 // bytes
	maxDepth  = 100      // parentheses and braces
)

func tooMuch(text string) bool {
	depth, deepest := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '(', '{':
			depth++
			deepest = max(deepest, depth)
		case ')', '}':
			depth = max(0, depth-1) // the patterns of case have no first one
		}
	}
	return len(text) > maxScript || deepest > maxDepth
}

func parseScript(text string) *script {
	if tooMuch(text) {
		return nil
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		return nil // its shell will say so
	}
	s := &script{last: -1}
	chains := make(map[*syntax.Stmt]bool)
	for _, st := range file.Stmts {
		chain(st, chains)
	}
	s.chain = len(file.Stmts) == 1 && isChain(file.Stmts[0])
	var end *syntax.CallExpr
	if n := len(file.Stmts); n > 0 {
		end = lastCall(file.Stmts[n-1])
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		st, ok := n.(*syntax.Stmt)
		if !ok {
			return true
		}
		call, ok := st.Cmd.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		if call == end {
			s.last = len(s.cmds)
		}
		c := command{chain: chains[st], at: &Edit{
			Line: int(st.Pos().Line()), Column: int(st.Pos().Col()), EndLine: int(st.End().Line()), EndColumn: int(st.End().Col()),
		}}
		for _, w := range call.Args {
			c.words = append(c.words, plain(w, text))
			line, col := int(w.End().Line()), int(w.End().Col())
			c.ends = append(c.ends, Edit{line, col, line, col, ""})
		}
		for _, r := range st.Redirs {
			switch r.Op {
			case syntax.RdrOut, syntax.AppOut, syntax.RdrClob, syntax.RdrAll, syntax.AppAll:
				c.writes = append(c.writes, plain(r.Word, text))
			}
		}
		s.cmds = append(s.cmds, c)
		return true
	})
	return s
}

// chain marks the simple statements that are joined by nothing but "&&".
func chain(st *syntax.Stmt, in map[*syntax.Stmt]bool) {
	if isChain(st) {
		mark(st, in)
	}
}

func isChain(st *syntax.Stmt) bool {
	if st.Negated || st.Background || st.Coprocess {
		return false
	}
	switch cmd := st.Cmd.(type) {
	case *syntax.CallExpr:
		return true
	case *syntax.BinaryCmd:
		return cmd.Op == syntax.AndStmt && isChain(cmd.X) && isChain(cmd.Y)
	}
	return false
}

func mark(st *syntax.Stmt, in map[*syntax.Stmt]bool) {
	if b, ok := st.Cmd.(*syntax.BinaryCmd); ok {
		mark(b.X, in)
		mark(b.Y, in)
		return
	}
	in[st] = true
}

// lastCall returns the simple command whose effect the statement ends with.
func lastCall(st *syntax.Stmt) *syntax.CallExpr {
	switch cmd := st.Cmd.(type) {
	case *syntax.CallExpr:
		return cmd
	case *syntax.BinaryCmd:
		if cmd.Op == syntax.AndStmt || cmd.Op == syntax.OrStmt {
			return lastCall(cmd.Y)
		}
	}
	return nil
}

// plain returns a word without its quotes, its variables as they stand.
func plain(w *syntax.Word, text string) string {
	var b strings.Builder
	var parts func(list []syntax.WordPart)
	parts = func(list []syntax.WordPart) {
		for _, part := range list {
			switch part := part.(type) {
			case *syntax.Lit:
				b.WriteString(strings.ReplaceAll(part.Value, "\\\n", ""))
			case *syntax.SglQuoted:
				b.WriteString(part.Value)
			case *syntax.DblQuoted:
				parts(part.Parts)
			default:
				b.WriteString(text[part.Pos().Offset():part.End().Offset()])
			}
		}
	}
	parts(w.Parts)
	return b.String()
}

// runHead is RUN with its flags, as far as they can be read without quotes.
var runHead = lazyregexp.New(`^(?i:[ \t]*run)([ \t]|\\\n)+(--[a-z]+=[^\s"']+([ \t]|\\\n)+)*`)

// locate finds out where the commands stand in the file: it is parsed once
// more as it was written, and taken only if it then says the same.
func (s *script) locate(f *frontend.File, r *frontend.Run) {
	lines := slices.Clone(f.Lines[r.Pos.Line-1 : r.Pos.End])
	if word, _, ok := strings.Cut(lines[0], "<<"); ok && strings.EqualFold(strings.TrimSpace(word), "RUN") {
		lines[0], lines[len(lines)-1] = "", ""
	} else {
		for i := 1; i < len(lines); i++ {
			// A comment between continued lines is no part of the command.
			if t := strings.TrimSpace(lines[i]); strings.HasPrefix(t, "#") && i < len(lines)-1 {
				lines[i] = strings.Repeat(" ", len(lines[i])-1) + `\`
			}
		}
	}
	text := strings.Join(lines, "\n")
	text = runHead().ReplaceAllStringFunc(text, func(head string) string {
		return strings.Map(func(c rune) rune {
			if c == '\n' || c == '\\' {
				return c
			}
			return ' '
		}, head)
	})
	there := parseScript(text)
	same := there != nil && slices.EqualFunc(there.cmds, s.cmds, func(a, b command) bool { return slices.Equal(a.words, b.words) })
	for i := range s.cmds {
		c := &s.cmds[i]
		if !same {
			c.at, c.ends = nil, nil
			continue
		}
		c.at, c.ends = there.cmds[i].at, there.cmds[i].ends
		c.at.Line, c.at.EndLine = c.at.Line+r.Pos.Line-1, c.at.EndLine+r.Pos.Line-1
		for j := range c.ends {
			c.ends[j].Line, c.ends[j].EndLine = c.ends[j].Line+r.Pos.Line-1, c.ends[j].EndLine+r.Pos.Line-1
		}
	}
}

// before is an edit that puts text before the command.
func (c *command) before(text string) Edit {
	return Edit{c.at.Line, c.at.Column, c.at.Line, c.at.Column, text}
}

// appended is an edit that puts text after the command.
func (c *command) appended(text string) Edit {
	return Edit{c.at.EndLine, c.at.EndColumn, c.at.EndLine, c.at.EndColumn, text}
}
