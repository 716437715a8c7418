// Package frontend turns Containerfiles into typed instructions with their
// positions: names, expansion, and all that is wrong with a file at once.
// It is the only package that imports BuildKit.
package frontend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// maxFile bounds a Containerfile, in bytes. One that is larger is no text that
// somebody wrote.
const maxFile = 4 << 20

// Load reads and parses a Containerfile. The error is Problems; the File is
// what was understood all the same, and nil where nothing could be read.
func Load(path string) (*File, error) {
	bad := func(format string, args ...any) (*File, error) {
		return nil, Problems{{Pos: Pos{File: path}, Message: fmt.Sprintf(format, args...)}}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return bad("no such file")
	}
	if err != nil {
		return bad("%v", errors.Unwrap(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return bad("is a folder; name the Containerfile in it")
	}
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return bad("%v", err)
	}
	return Parse(path, src)
}

// Parse parses the text of a Containerfile. The error is Problems: all that is
// wrong. The File holds what was understood, so that a caller can go on to
// gather what Resolve finds.
func Parse(path string, src []byte) (*File, error) {
	f := &File{Path: path, Dir: filepath.Dir(path), Name: LayerName(path)}
	whole := func(message string) (*File, error) {
		return f, Problems{{Pos: Pos{File: path}, Message: message}}
	}
	switch {
	case len(src) > maxFile:
		return whole(fmt.Sprintf("larger than %d MiB: this is no Containerfile", maxFile>>20))
	case bytes.IndexByte(src, 0) >= 0 || !utf8.Valid(src):
		return whole("not a text in UTF-8: this is no Containerfile")
	}
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	f.Lines = strings.Split(strings.TrimSuffix(string(src), "\n"), "\n")

	p := &fileParser{file: f}
	nodes, escape := p.nodes(src)
	p.escape = escape
	for _, n := range nodes {
		p.instruction(n)
	}
	if len(f.Instructions) == 0 && len(p.problems) == 0 {
		return whole("holds no instructions")
	}
	p.problems.sort()
	return f, p.problems.Err()
}

type fileParser struct {
	file     *File
	escape   rune
	problems Problems
	lastEnd  int // the last line of the instruction before
}

// nodes parses the lines. BuildKit's parser stops at the first line that it
// can't parse: what is before it is then parsed alone, and what follows too.
func (p *fileParser) nodes(src []byte) ([]*parser.Node, rune) {
	escape := parser.DefaultEscapeToken
	var all []*parser.Node
	skipped := 0 // lines before src
	for len(bytes.TrimSpace(src)) > 0 {
		res, err := parser.Parse(bytes.NewReader(src))
		if err == nil {
			if skipped == 0 {
				escape = res.EscapeToken
			}
			for _, n := range res.AST.Children {
				n.StartLine += skipped
				n.EndLine += skipped
				all = append(all, n)
			}
			break
		}
		start, end := errorLines(err)
		if start == 0 {
			break // comments alone
		}
		p.syntax(err, skipped+start, skipped+end)
		lines := bytes.SplitAfter(src, []byte("\n"))
		if start <= len(lines) {
			if before, err := parser.Parse(bytes.NewReader(bytes.Join(lines[:start-1], nil))); err == nil {
				for _, n := range before.AST.Children {
					n.StartLine += skipped
					n.EndLine += skipped
					all = append(all, n)
				}
			}
		}
		end = max(start, min(end, len(lines)))
		if strings.Contains(err.Error(), "unterminated heredoc") {
			end = len(lines)
		}
		src = bytes.Join(lines[end:], nil)
		skipped += end
	}
	return all, escape
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
