package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// allowed are uses of the same words in other meanings. They are removed from a
// text before it is searched.
var allowed = []struct {
	use    *regexp.Regexp
	reason string
}{
	{regexp.MustCompile(`\bby hand\b`), "manually"},
	{regexp.MustCompile(`\bbehind (a|an|the|its|this|another) ([a-z]+ )?(proxy|firewall|endpoint)\b`), "a place in a network"},
	{regexp.MustCompile(`\b(leav(e|es|ing)|left)( [a-z]+)? behind\b`), "not removed"},
	{regexp.MustCompile(`\bapt ?lists ?kept\b`), "the name of a rule, which check=skip= takes"},
	{regexp.MustCompile(`\b(told,omitempty|kept,omitempty|seal,omitempty|json:"kept")`), "members of files that are written already"},
}

// ordinary are avoided words with an everyday meaning. They are avoided in names,
// where they would stand for a thing, but not in sentences.
var ordinary = map[string]string{
	"keep":  "not to lose, as in keep secret",
	"room":  "space, as on a disk",
	"hand":  "to pass, as in hand over",
	"sound": "without defects",
}

// An avoided word, or phrase, of the glossary, with what to write instead.
type avoided struct {
	use     *regexp.Regexp
	text    string
	instead string
}

// readGlossary reads the last column of the tables of docs/glossary.md.
func readGlossary(t *testing.T) (list []avoided) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "glossary.md"))
	if err != nil {
		t.Fatal(err)
	}
	inBrackets := regexp.MustCompile(`\([^)]*\)`)
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) < 2 || strings.Contains(line, "---") {
			continue
		}
		last := strings.TrimSpace(inBrackets.ReplaceAllString(cells[len(cells)-1], ""))
		if last == "avoid" || last == "rather than" || last == "" {
			continue
		}
		for text := range strings.SplitSeq(last, ",") {
			text = strings.TrimSpace(text)
			list = append(list, avoided{regexp.MustCompile(`\b` + regexp.QuoteMeta(text) + `s?\b`), text, strings.TrimSpace(cells[0])})
		}
	}
	if len(list) < 20 {
		t.Fatalf("docs/glossary.md avoids %d words: its tables are not read", len(list))
	}
	return list
}

// A vocabulary reports avoided words, by package or page.
type vocabulary struct {
	words []avoided
	found map[string][]string // uses, by package or page
}

// name checks the name of something that the program declares.
func (v *vocabulary) name(where, at, name string) { v.check(where, at, splitName(name), true) }

// prose checks a sentence.
func (v *vocabulary) prose(where, at, text string) { v.check(where, at, text, false) }

func (v *vocabulary) check(where, at, text string, isName bool) {
	text = strings.ToLower(text)
	for _, a := range allowed {
		text = a.use.ReplaceAllString(text, "")
	}
	for _, w := range v.words {
		if (isName || ordinary[w.text] == "") && strings.Contains(text, w.text) && w.use.MatchString(text) {
			v.found[where] = append(v.found[where], fmt.Sprintf("%s: %q: write %q", at, w.text, w.instead))
		}
	}
}

// splitName splits a name at its capitals: "openTempDir" is "open Temp Dir".
func splitName(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) || r == '_' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// file checks the names that a file declares, its comments, and the strings of
// what is no test: those of tests hold scripts and file names.
func (v *vocabulary) file(path, pkg string) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	at := func(p token.Pos) string { return fmt.Sprintf("%s:%d", filepath.ToSlash(path), fset.Position(p).Line) }
	for _, g := range f.Comments {
		v.prose(pkg, at(g.Pos()), strings.Join(strings.Fields(g.Text()), " "))
	}
	declare := func(exprs ...ast.Expr) {
		for _, e := range exprs {
			if id, ok := e.(*ast.Ident); ok && id != nil {
				v.name(pkg, at(id.Pos()), id.Name)
			}
		}
	}
	idents := func(names []*ast.Ident) {
		for _, id := range names {
			declare(id)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.FuncDecl:
			declare(n.Name)
		case *ast.TypeSpec:
			declare(n.Name)
		case *ast.Field:
			idents(n.Names)
		case *ast.ValueSpec:
			idents(n.Names)
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				declare(n.Lhs...)
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				declare(n.Key, n.Value)
			}
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && !strings.HasSuffix(path, "_test.go") {
				v.prose(pkg, at(n.Pos()), text)
			}
		}
		return true
	})
	return nil
}

// TestVocabulary keeps the words that docs/glossary.md avoids out of names,
// comments, messages and documentation.
func TestVocabulary(t *testing.T) {
	root := filepath.Join("..", "..")
	v := &vocabulary{words: readGlossary(t), found: make(map[string][]string)}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git" || d.Name() == "dist" || d.Name() == "man1"):
			return fs.SkipDir
		case filepath.Ext(path) == ".go" && d.Name() != "vocabulary_test.go":
			return v.file(path, filepath.ToSlash(filepath.Dir(rel)))
		case rel == "README.md" || strings.HasPrefix(rel, "docs/") && filepath.Ext(rel) == ".md" && rel != "docs/glossary.md":
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			number := 0
			for line := range strings.Lines(string(data)) {
				number++
				v.prose(rel, fmt.Sprintf("%s:%d", rel, number), line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, where := range slices.Sorted(maps.Keys(v.found)) {
		t.Errorf("%s uses words that docs/glossary.md avoids:\n\t%s", where, strings.Join(v.found[where], "\n\t"))
	}
}
