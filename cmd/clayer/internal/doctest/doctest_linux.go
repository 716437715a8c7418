//go:build linux

// Package doctest runs the commands of the documentation as a reader types them.
package doctest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/clayer/clayer/internal/githubtest"
)

// A Block is a fenced block of commands in a page.
type Block struct {
	Line        int
	Kind        string // "sh", or "console" where output is shown
	Text        string
	Before      string // commands of an HTML comment above: <!-- before: ... -->
	Not         string // why it is not run: <!-- not run: ... -->
	WithGo      bool   // <!-- with go -->: in a checkout, on a machine that has Go
	NextMachine bool   // <!-- next machine -->: it and what follows is typed on another one
}

var comment = regexp.MustCompile(`^<!-- (before|not run|with go|next machine)(?:: (.*))? -->$`)

// Blocks returns the blocks of a page.
func Blocks(t *testing.T, page string) (blocks []Block) {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var open *Block
	var next Block
	fenced := false // in a block of another kind
	for i, line := range strings.Split(string(data), "\n") {
		m := comment.FindStringSubmatch(line)
		switch {
		case open != nil && line == "```":
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.Text += line + "\n"
		case fenced:
			fenced = line != "```"
		case m != nil:
			switch m[1] {
			case "before":
				next.Before += m[2] + "\n"
			case "not run":
				next.Not = m[2]
			case "with go":
				next.WithGo = true
			case "next machine":
				next.NextMachine = true
			}
		case line == "```sh" || line == "```console":
			b := next
			b.Line, b.Kind = i+1, line[3:]
			open, next = &b, Block{}
		case strings.HasPrefix(line, "```"):
			fenced, next = true, Block{}
		case line != "":
			next = Block{}
		}
	}
	return blocks
}

// Files copies what the commands of a page find into a directory. testdata is that of
// the repository.
func Files(t *testing.T, testdata, page, to string) {
	t.Helper()
	copies := [][2]string{{"docs/common", "."}, {"docs/" + page, "."}}
	if page == "README" { // it solves what stands in a checkout
		copies = append(copies, [2]string{"hello", "testdata/hello"})
	}
	for _, c := range copies {
		from := filepath.Join(testdata, c[0])
		if _, err := os.Stat(from); err != nil {
			continue
		}
		if err := os.CopyFS(filepath.Join(to, c[1]), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
}

// GitHub starts a GitHub on loopback with what the pages name, and returns the
// variables that lead there.
func GitHub(t *testing.T) (env []string) {
	gh := githubtest.New(t)
	gh.Repo("me/env", githubtest.Repo{})
	gh.Repo("me/mojo", githubtest.Repo{Files: map[string]string{"bin/mojo": "#!/bin/sh\n" + MojoProgram}})
	gh.Token("ghp_test0123456789", "write")
	return []string{"GITHUB_API_URL=" + gh.URL, "GITHUB_SERVER_URL=" + gh.URL, "GH_TOKEN=ghp_test0123456789"}
}

// MojoProgram is the pretended mojo: a script for sh, but for its first line.
const MojoProgram = `case $1 in --version) echo mojo 1.0;; precompile) if [ "$2" = lib ]; then echo "error: no such module: numpy"; exit 2; fi; echo "$@" > /opt/precompiled;; esac
`

// Follow types the commands of the blocks into one shell, as a reader does. Those
// of a block without output all have to work; of one with output each command
// after "$ " has to print what is shown. One that is to fail says so:
// "$ clayer verify   # exits with 1". dir is left out of what is compared.
func Follow(t *testing.T, blocks []Block, dir string, bash func(script string) (string, error)) {
	t.Helper()
	type step struct {
		line      int
		cmd, want string
		code      int
		console   bool
	}
	var steps []step
	for _, b := range blocks {
		if b.Kind == "sh" {
			b.Before, b.Text = b.Before+b.Text, ""
		}
		if b.Before != "" {
			steps = append(steps, step{line: b.Line, cmd: "set -eu\n" + b.Before + "set +eu\n"})
		}
		for l := range strings.Lines(b.Text) {
			if cmd, ok := strings.CutPrefix(l, "$ "); ok {
				s := step{line: b.Line, cmd: cmd, console: true}
				if m := regexp.MustCompile(`# exits with (\d+)$`).FindStringSubmatch(strings.TrimSpace(cmd)); m != nil {
					s.code, _ = strconv.Atoi(m[1])
				}
				steps = append(steps, s)
			} else if len(steps) > 0 {
				steps[len(steps)-1].want += l
			}
		}
	}
	var script strings.Builder
	for _, s := range steps {
		script.WriteString(s.cmd + "printf '\\001%d\\001' $?\n")
	}
	out, err := bash(script.String())
	parts := strings.Split(out, "\x01")
	for i, s := range steps {
		if 2*i+1 >= len(parts) {
			t.Fatalf("line %d: %v:\n%s\nprints\n%s", s.line, err, s.cmd, parts[len(parts)-1])
		}
		got := steady(parts[2*i], dir)
		if code := parts[2*i+1]; code != fmt.Sprint(s.code) {
			t.Errorf("line %d: $ %sexit code %s\n%s", s.line, s.cmd, code, parts[2*i])
		}
		if s.console && !linesMatch(steady(s.want, dir), got) {
			t.Errorf("line %d: $ %sprints\n%s\nand not\n%s", s.line, s.cmd, parts[2*i], s.want)
		}
	}
}

// steady is a text without what is not the same in each run, a line each.
func steady(text, dir string) []string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, dir+"/project/", ""), dir, "")
	for _, u := range unsteady {
		text = u.re.ReplaceAllString(text, u.with)
	}
	var lines []string
	for l := range bytes.Lines([]byte(text)) {
		if s := strings.Join(strings.Fields(string(l)), " "); s != "" {
			lines = append(lines, s)
		}
	}
	return lines
}

var unsteady = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\b[0-9a-f]{12,64}\b`), "DIGEST"},
	{regexp.MustCompile(` ?\(~[^)]*\)| ~\d+(ms|s|m)[\dms]*\b`), ""}, // estimates: there are none below a second
	{regexp.MustCompile(`~?\b(\d+m)?\d+(\.\d+)? ?(s|ms|min)\b`), "TIME"},
	{regexp.MustCompile(`\b\d+(\.\d+)? (B|kB|MB|GB)\b`), "SIZE"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d`), "DATE"},
	{regexp.MustCompile(`(?m)^clayer: sandbox: .*\n`), ""},
}

// linesMatch reports whether lines are those wanted, among which "..." stands
// for any.
func linesMatch(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "..." {
		for i := range len(got) + 1 {
			if linesMatch(want[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && want[0] == got[0] && linesMatch(want[1:], got[1:])
}
