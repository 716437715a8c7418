// Package shellvars finds the variables that a command takes from its environment.
package shellvars

import (
	"maps"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// IsShell reports whether a program is a shell whose language Free knows.
func IsShell(program string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash", "ksh", "mksh", "busybox"}, path.Base(program))
}

// Words calls f with the words of a text that could be the names of variables.
func Words(text string, f func(word string)) {
	start := -1
	for i := 0; i <= len(text); i++ {
		if i < len(text) && isNameByte(text[i]) {
			if start < 0 {
				start = i
			}
			continue
		}
		if start >= 0 && (text[start] < '0' || text[start] > '9') {
			f(text[start:i])
		}
		start = -1
	}
}

func isNameByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// Mentions calls f with the words of a shell script that Free may find, and perhaps
// more. It is quick: a plan asks it of each RUN.
func Mentions(script string, f func(word string)) {
	for _, sign := range []string{"export", "printenv", "((", "[["} {
		if strings.Contains(script, sign) {
			Words(script, f)
			return
		}
	}
	for {
		_, rest, ok := strings.Cut(script, "$")
		if !ok {
			return
		}
		end := 0
		if strings.HasPrefix(rest, "{") {
			end = 1
		}
		start := end
		for end < len(rest) && isNameByte(rest[end]) {
			end++
		}
		if start == 1 && !strings.HasPrefix(rest[end:], "}") { // more than a name
			Words(rest, f)
			return
		}
		f(rest[start:end])
		script = rest[end:]
	}
}

var reference = lazyregexp.New(`\$\{?[#!]?([A-Za-z_][A-Za-z0-9_]*)`)

// Expanded returns those of the names that a text has as $NAME or ${NAME}, sorted.
func Expanded(text string, names map[string]bool) []string {
	found := make(map[string]bool)
	for _, m := range reference().FindAllStringSubmatch(text, -1) {
		if names[m[1]] {
			found[m[1]] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// maxParsed bounds what is parsed, in bytes, and with it how deep the parser descends.
const maxParsed = 64 << 10

// Free returns those of the names that a shell script refers to, sorted, but for those
// that it has assigned on every way to where it does. Quoted text, which may be the
// script of another shell, counts as it stands. A script that cannot be parsed, or is
// longer than maxParsed, assigns nothing.
func Free(script string, names map[string]bool) []string {
	if len(script) > maxParsed {
		return Expanded(script, names)
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(script), "")
	if err != nil {
		return Expanded(script, names)
	}
	s := &scan{names: names, free: make(map[string]bool), assigned: make(map[string]bool)}
	s.stmts(file.Stmts)
	return slices.Sorted(maps.Keys(s.free))
}

// A scan goes through a script as it runs.
type scan struct {
	names, free map[string]bool
	assigned    map[string]bool // by now, whichever way the script took
}

func (s *scan) use(name string) {
	if s.names[name] && !s.assigned[name] {
		s.free[name] = true
	}
}

func (s *scan) assign(name string) { s.assigned[name] = true }

// apart scans what may not run, or runs in a process of its own: what it assigns is
// not assigned afterwards. It returns what was assigned at its end.
func (s *scan) apart(f func()) map[string]bool {
	before := s.assigned
	s.assigned = maps.Clone(before)
	f()
	after := s.assigned
	s.assigned = before
	return after
}

// joined assigns what was assigned at the end of each of the ways, of which one was taken.
func (s *scan) joined(ways []map[string]bool) {
	for name := range ways[0] {
		if !slices.ContainsFunc(ways, func(w map[string]bool) bool { return !w[name] }) {
			s.assign(name)
		}
	}
}

func (s *scan) stmts(list []*syntax.Stmt) {
	for _, st := range list {
		s.walk(st)
	}
}

func (s *scan) walk(n syntax.Node) { syntax.Walk(n, s.node) }

func walkAll[N syntax.Node](s *scan, nodes []N) {
	for _, n := range nodes {
		s.walk(n)
	}
}

// node scans a node, and reports whether those in it are left to do.
func (s *scan) node(n syntax.Node) bool {
	switch n := n.(type) {
	case *syntax.Stmt:
		if !n.Background {
			return true
		}
		s.apart(func() {
			foreground := *n
			foreground.Background = false
			s.walk(&foreground)
		})
	case *syntax.Subshell:
		s.apart(func() { s.stmts(n.Stmts) })
	case *syntax.CmdSubst:
		s.apart(func() { s.stmts(n.Stmts) })
	case *syntax.ProcSubst:
		s.apart(func() { s.stmts(n.Stmts) })
	case *syntax.FuncDecl:
		s.apart(func() { s.walk(n.Body) })
	case *syntax.BinaryCmd:
		s.binary(n)
	case *syntax.IfClause:
		s.joined(s.branches(n))
	case *syntax.CaseClause:
		s.choice(n)
	case *syntax.WhileClause:
		s.stmts(n.Cond)
		s.apart(func() { s.stmts(n.Do) })
	case *syntax.ForClause:
		s.loop(n)
	case *syntax.CallExpr:
		s.call(n)
	case *syntax.DeclClause:
		s.declare(n)
	case *syntax.ParamExp:
		s.expand(n)
	case *syntax.BinaryArithm, *syntax.UnaryArithm:
		s.arithm(n.(syntax.ArithmExpr))
	case *syntax.ArithmExp:
		s.arithm(n.X)
	case *syntax.ArithmCmd:
		s.arithm(n.X)
	case *syntax.UnaryTest:
		if x, ok := n.X.(*syntax.Word); ok && n.Op == syntax.TsVarSet {
			s.use(x.Lit())
		}
		return true
	case *syntax.Lit:
		s.text(n.Value)
	case *syntax.SglQuoted:
		s.text(n.Value)
	default:
		return true
	}
	return false
}

// text is literal here, and may be a script elsewhere.
func (s *scan) text(text string) {
	for _, name := range Expanded(text, s.names) {
		s.use(name)
	}
}

func (s *scan) binary(n *syntax.BinaryCmd) {
	switch n.Op {
	case syntax.AndStmt: // a RUN whose steps fail ends
		s.walk(n.X)
		s.walk(n.Y)
	case syntax.OrStmt:
		s.walk(n.X)
		s.apart(func() { s.walk(n.Y) })
	default: // a pipe
		s.apart(func() { s.walk(n.X) })
		s.apart(func() { s.walk(n.Y) })
	}
}

// branches returns what is assigned at the end of each branch.
func (s *scan) branches(n *syntax.IfClause) []map[string]bool {
	s.stmts(n.Cond)
	ways := []map[string]bool{s.apart(func() { s.stmts(n.Then) })}
	switch {
	case n.Else == nil:
		return append(ways, s.assigned)
	case len(n.Else.Cond) == 0: // "else"
		return append(ways, s.apart(func() { s.stmts(n.Else.Then) }))
	}
	var more []map[string]bool
	s.apart(func() { more = s.branches(n.Else) })
	return append(ways, more...)
}

func (s *scan) choice(n *syntax.CaseClause) {
	s.walk(n.Word)
	var ways []map[string]bool
	all := false // one of the patterns fits whatever the word is
	for _, item := range n.Items {
		walkAll(s, item.Patterns)
		ways = append(ways, s.apart(func() { s.stmts(item.Stmts) }))
		all = all || slices.ContainsFunc(item.Patterns, func(p *syntax.Word) bool { return p.Lit() == "*" })
	}
	if all {
		s.joined(ways)
	}
}

func (s *scan) loop(n *syntax.ForClause) {
	if words, ok := n.Loop.(*syntax.WordIter); ok {
		walkAll(s, words.Items)
		s.assign(words.Name.Value)
	} else {
		s.walk(n.Loop)
	}
	s.apart(func() { s.stmts(n.Do) })
}

// call scans a simple command. What stands before its name is for it alone.
func (s *scan) call(n *syntax.CallExpr) {
	for _, a := range n.Assigns {
		s.value(a)
		if len(n.Args) == 0 {
			s.assign(a.Name.Value)
		}
	}
	walkAll(s, n.Args)
	if len(n.Args) == 0 {
		return
	}
	args := n.Args[1:]
	switch n.Args[0].Lit() {
	case "printenv":
		for _, w := range args {
			s.use(w.Lit())
		}
	case "read", "mapfile", "readarray", "getopts", "unset":
		for _, w := range args {
			s.assign(w.Lit())
		}
	case "printf":
		if len(args) > 1 && args[0].Lit() == "-v" {
			s.assign(args[1].Lit())
		}
	}
}

// value scans what an assignment assigns, and what it is added to.
func (s *scan) value(a *syntax.Assign) {
	if a.Append {
		s.use(a.Name.Value)
	}
	if a.Index != nil {
		s.walk(a.Index)
	}
	if a.Value != nil {
		s.walk(a.Value)
	}
	if a.Array != nil {
		s.walk(a.Array)
	}
}

func (s *scan) declare(n *syntax.DeclClause) {
	for _, a := range n.Args {
		s.value(a)
		switch {
		case a.Name == nil: // an option
		case !a.Naked:
			s.assign(a.Name.Value)
		case n.Variant.Value == "local":
			s.assign(a.Name.Value)
		case n.Variant.Value == "export":
			s.use(a.Name.Value)
		}
	}
}

// expand scans ${NAME...}.
func (s *scan) expand(n *syntax.ParamExp) {
	if n.Param != nil {
		s.use(n.Param.Value)
	}
	if n.Index != nil {
		s.arithm(n.Index)
	}
	if n.Slice != nil {
		for _, x := range []syntax.ArithmExpr{n.Slice.Offset, n.Slice.Length} {
			if x != nil {
				s.arithm(x)
			}
		}
	}
	if n.Repl != nil {
		for _, w := range []*syntax.Word{n.Repl.Orig, n.Repl.With} {
			if w != nil {
				s.walk(w)
			}
		}
	}
	if n.Exp == nil {
		return
	}
	if n.Exp.Word != nil {
		s.walk(n.Exp.Word)
	}
	if n.Param != nil && (n.Exp.Op == syntax.AssignUnset || n.Exp.Op == syntax.AssignUnsetOrNull) {
		s.assign(n.Param.Value)
	}
}

// arithm scans an expression, in which a name needs no "$".
func (s *scan) arithm(x syntax.ArithmExpr) {
	switch x := x.(type) {
	case *syntax.Word:
		if name := x.Lit(); name != "" {
			s.use(name)
			return
		}
		s.walk(x)
	case *syntax.ParenArithm:
		s.arithm(x.X)
	case *syntax.UnaryArithm:
		s.arithm(x.X)
	case *syntax.BinaryArithm:
		target, _ := x.X.(*syntax.Word)
		if x.Op != syntax.Assgn || target == nil {
			s.arithm(x.X)
		}
		s.arithm(x.Y)
		if x.Op == syntax.Assgn && target != nil {
			s.assign(target.Lit())
		}
	}
}
