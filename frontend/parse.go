// Package frontend turns Containerfiles into typed instructions with their
// positions: names, expansion, and all that is wrong with a file at once.
// It and package buildchecks alone import BuildKit.
//
// Parse and Load return a File with its instructions as they are written, and
// Problems, which name the line and what to write in its place. File.Resolve
// returns them with their variables expanded, in the Scope of what is set before.
package frontend

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/frontend/internal/lexical"
	"github.com/clayer/clayer/frontend/layername"
	"github.com/clayer/clayer/frontend/reference"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/internal/safefile"
)

// MaxFile bounds a Containerfile, in bytes. One that is larger is no text that
// somebody wrote.
const MaxFile = 4 << 20

var tooLarge = fmt.Sprintf("larger than %d MiB: this is no Containerfile", MaxFile>>20)

// maxLine bounds a line, in bytes: BuildKit's parser takes no longer ones.
const maxLine = bufio.MaxScanTokenSize - 1

// After each instruction that can't be parsed, parsing starts again. It stops, and
// says so, after maxSyntax reported instructions, and after maxPasses passes.
const (
	maxSyntax = 20
	maxPasses = 200
)

// Load reads and parses a Containerfile. path may be "-" or, as "<(command)" of a
// shell is, a descriptor: then the file has no name and no directory of its own,
// and the wait for its text ends with ctx. The error is Problems, or that of ctx;
// the File is what was understood all the same, and nil where nothing could be read.
func Load(ctx context.Context, path string, args Args) (*File, error) {
	bad := func(hint, format string, args ...any) (*File, error) {
		return nil, Problems{{Pos: Pos{File: path}, Message: fmt.Sprintf(format, args...), Hint: hint}}
	}
	src, err := safefile.ReadInput(ctx, path, MaxFile)
	reason := err // without the path, which is printed already
	var pe *fs.PathError
	if errors.As(err, &pe) {
		reason = pe.Err
	}
	switch info, statErr := os.Stat(path); {
	case err == nil:
		f, err := ParseFor(args, path, src)
		if _, ok := safefile.IsInput(path); ok {
			f.setDir(".", "layer")
		}
		return f, err
	case ctx.Err() != nil:
		return nil, err
	case errors.Is(err, fs.ErrNotExist):
		return bad("-f names another file, and clayer compose a layer", "no such file")
	case errors.Is(err, safefile.ErrTooLarge):
		return bad("", "%s", tooLarge)
	case statErr == nil && info.IsDir():
		return bad("name the file in it: "+filepath.Join(path, "Containerfile"), "is a directory")
	case errors.Is(err, safefile.ErrNotRegular):
		return bad("-f - reads a Containerfile from stdin", "is no file: %v", reason)
	}
	return bad("", "%v", reason)
}

// Parse parses the text of a Containerfile. The error is Problems: all that is
// wrong. The File holds what was understood, so that a caller can go on to
// gather what Resolve finds.
func Parse(path string, src []byte) (*File, error) { return ParseFor(Args{}, path, src) }

// ParseFor parses a file whose FROM lines have args.
func ParseFor(args Args, path string, src []byte) (*File, error) {
	f := &File{args: args, Path: path, Dir: filepath.Dir(path), Name: layername.Of(path), Source: string(src)}
	whole := func(message string) (*File, error) {
		return f, Problems{{Pos: Pos{File: path}, Message: message}}
	}
	switch {
	case len(src) > MaxFile:
		return whole(tooLarge)
	case bytes.IndexByte(src, 0) >= 0 || !utf8.Valid(src):
		return whole("not a text in UTF-8: this is no Containerfile")
	}
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	f.Lines = strings.Split(strings.TrimSuffix(string(src), "\n"), "\n")
	for i, line := range f.Lines {
		if len(line) >= maxLine {
			return f, Problems{{
				Pos: Pos{File: path, Line: i + 1, End: i + 1}, Message: fmt.Sprintf("a line of %d bytes; the most is %d", len(line), maxLine-1),
				Line: lexical.Excerpt(line[:lexical.MaxExcerpt]), Hint: "COPY copies a long text from a file",
			}}
		}
	}

	p := &fileParser{file: f}
	for _, n := range p.nodes(src) {
		p.instruction(n)
	}
	if len(f.Instructions) == 0 && len(p.problems) == 0 {
		return whole("holds no instructions")
	}
	p.divide()
	return f, p.problems.Sorted().Err()
}

type fileParser struct {
	file     *File
	problems Problems
	lastEnd  int // the last line of the instruction before
}

// nodes parses the lines. BuildKit's parser stops at the first instruction that
// it can't parse: that one is reported, and those before and after it are parsed
// on their own.
func (p *fileParser) nodes(src []byte) []*parser.Node {
	var all []*parser.Node
	p.file.escape = escapeOf(src)
	skipped := 0 // lines before src
	take := func(src []byte) error {
		res, err := parser.Parse(bytes.NewReader(src))
		if err != nil {
			return err
		}
		for _, n := range res.AST.Children {
			n.StartLine += skipped
			n.EndLine += skipped
			all = append(all, n)
		}
		return nil
	}
	for passes := 0; !lexical.OnlyComments(src); passes++ {
		err := take(src)
		if err == nil {
			break
		}
		lines := bytes.SplitAfter(src, []byte("\n"))
		start, end := errorLines(err)
		start = min(max(start, 1), len(lines))
		end = min(max(start, end), len(lines))
		p.syntax(err, skipped+start, skipped+end)
		if len(p.problems) >= maxSyntax || passes >= maxPasses {
			p.problems = append(p.problems, &Problem{
				Pos: Pos{File: p.file.Path, Line: skipped + end, End: skipped + end}, Message: "too much before this line can't be parsed: what follows was not looked at",
			})
			break
		}
		if before := bytes.Join(lines[:start-1], nil); !lexical.OnlyComments(before) {
			// It parsed as far as here a moment ago, but for what a directive
			// of the whole file did.
			_ = take(before)
		}
		// What follows is no beginning of a file: the escape character stays,
		// and a comment that looks like a directive is none.
		head := []byte("# escape=" + string(p.file.escape) + "\n#\n")
		src = slices.Concat(head, bytes.Join(lines[end:], nil))
		skipped += end - 2
	}
	return all
}

// escapeOf returns the escape character that the directives of a file set.
func escapeOf(src []byte) rune {
	// The directives alone, and an instruction, without which there is an error.
	var head bytes.Buffer
	for line := range bytes.Lines(src) {
		if !lexical.IsComment(string(line)) {
			break
		}
		head.Write(line)
	}
	res, err := parser.Parse(io.MultiReader(&head, strings.NewReader("\nRUN true\n")))
	if err != nil {
		return parser.DefaultEscapeToken
	}
	return res.EscapeToken
}

// errorLines returns the lines that a parse error is about, 0 for none.
func errorLines(err error) (start, end int) {
	var loc *parser.LocationError
	if !errors.As(err, &loc) {
		return 0, 0
	}
	for _, rs := range loc.Locations {
		for _, r := range rs {
			if start == 0 {
				start = r.Start.Line
			}
			end = max(end, r.End.Line)
		}
	}
	return start, end
}

// syntax adds what BuildKit's parser said of some lines.
func (p *fileParser) syntax(err error, start, end int) {
	m := &Meta{Pos: Pos{File: p.file.Path, Line: start, End: end}}
	word, _, _ := strings.Cut(strings.TrimSpace(p.file.Lines[start-1]), " ")
	if word = strings.ToUpper(word); lexical.IsWord(word) {
		m.Word = word
	}
	message, _, _ := strings.Cut(err.Error(), "\n")
	f := fault.Errorf("%s", message)
	if strings.Contains(message, "unterminated heredoc") {
		f.Hint = "a heredoc ends with its name on a line of its own"
	}
	p.file.report(&p.problems, m, lexical.CommentAfter(known, m.Word, lexical.Join(p.file.Lines, start, p.file.escapeByte()).Text, p.file.escapeByte(), f))
}

// escapeByte returns what "# escape=" sets.
func (f *File) escapeByte() byte {
	if f.escape == 0 {
		return '\\'
	}
	return byte(f.escape)
}

// lexPrefix is what BuildKit's lexer puts before each of its errors: the word,
// which the excerpt shows.
var lexPrefix = lazyregexp.New(`^failed to process "[^"]*": `)

// report adds what is wrong with an instruction.
func (f *File) report(ps *Problems, m *Meta, err error) {
	message := lexPrefix().ReplaceAllString(lexical.Redact(err.Error()), "")
	p := &Problem{Pos: m.Pos, Word: m.Word, Message: lexical.Show(message)}
	if line := m.Pos.Line; line >= 1 && line <= len(f.Lines) {
		p.Line = lexical.Excerpt(f.Lines[line-1])
	}
	var ft *fault.Fault
	if errors.As(err, &ft) {
		p.Hint = lexical.Show(lexical.Redact(ft.Hint))
	}
	*ps = append(*ps, p)
}

// source is one instruction as written: on one line, in its parts.
type source struct {
	node   *parser.Node
	joined lexical.Joined
	escape byte
	flags  []lexical.Flag
	rest   int // where in joined.Text the arguments begin
}

// args returns the arguments as written.
func (s *source) args() string { return strings.TrimSpace(s.joined.Text[s.rest:]) }

// words returns the arguments one by one, quotes and escapes included, also
// those of the JSON form.
func (s *source) words() ([]string, error) {
	if list, ok := lexical.JSONStrings(s.args()); ok {
		if strings.Contains(strings.Join(list, ""), reference.Mark) {
			return nil, fault.Errorf("a NUL can't be part of an argument")
		}
		return lexical.Escaped(list, s.escape), nil
	}
	words, open := lexical.SplitWords(s.joined.Text, s.rest, s.escape)
	if open != 0 {
		return nil, fault.Errorf("a quote %c is not closed", open)
	}
	return words, nil
}

// twice returns the name of a flag that is given more than once, and has one value; "" for
// none.
func (s *source) twice() string {
	for i, f := range s.flags {
		if f.Name != "mount" && f.Name != "exclude" && slices.ContainsFunc(s.flags[:i], func(g lexical.Flag) bool { return g.Name == f.Name }) {
			return f.Name
		}
	}
	return ""
}

// noFlags refuses the flags of an instruction that has none.
func (s *source) noFlags() error {
	if len(s.flags) > 0 {
		return fault.Errorf("takes no flag --%s", s.flags[0].Name)
	}
	return nil
}

// exactly returns the arguments, which must be those named. It is for instructions that
// Docker has not: a comment can follow them on their line, as container-layer had it.
func (s *source) exactly(word string, names ...string) ([]string, error) {
	words, err := s.words()
	if err != nil {
		return nil, err
	}
	if n := len(names); len(words) > n && strings.HasPrefix(words[n], "#") && !strings.HasPrefix(s.args(), "[") {
		words = words[:n]
	}
	usage := word + " " + strings.Join(names, " ")
	if len(words) < len(names) {
		return nil, fault.Errorf("%s is missing", names[len(words)]).WithHint("%s", usage)
	}
	if len(words) > len(names) {
		return nil, fault.Errorf("%d arguments, want %d", len(words), len(names)).WithHint("%s; an argument with blanks in it is quoted", usage)
	}
	return words, nil
}

// instruction adds the instruction of a node, or what is wrong with it.
func (p *fileParser) instruction(n *parser.Node) {
	s := &source{node: n, joined: lexical.Join(p.file.Lines, n.StartLine, p.file.escapeByte()), escape: p.file.escapeByte()}
	text := s.joined.Text
	end := strings.IndexAny(text, " \t")
	if end < 0 {
		end = len(text)
	}
	s.flags, s.rest = lexical.SplitFlags(text, end, s.escape)
	twice := s.twice()
	m := Meta{
		Pos:       Pos{File: p.file.Path, Line: n.StartLine, End: n.EndLine},
		Word:      strings.ToUpper(text[:end]),
		Text:      lexical.Display(text),
		CacheBust: lexical.CacheBust(p.file.Lines, p.lastEnd+1, lineEnd(n)),
	}
	p.lastEnd = n.EndLine
	in, err := build(m, s)
	if err == nil && twice != "" {
		err = fault.Errorf("--%s is given twice", twice)
	}
	if err != nil {
		err = lexical.CommentAfter(known, m.Word, text, s.escape, err)
		m.Word = lexical.Show(m.Word)
		p.file.report(&p.problems, &m, err)
		return
	}
	p.file.Instructions = append(p.file.Instructions, in)
}

// lineEnd returns the last line of an instruction itself, before its heredocs.
func lineEnd(n *parser.Node) int {
	end := n.EndLine
	for _, h := range n.Heredocs {
		end -= strings.Count(h.Content, "\n") + 1
	}
	return max(end, n.StartLine)
}

// Excerpt returns a line, from 1, fit to be shown; "" where there is none.
func (f *File) Excerpt(line int) string {
	if line < 1 || line > len(f.Lines) {
		return ""
	}
	return lexical.Excerpt(f.Lines[line-1])
}
