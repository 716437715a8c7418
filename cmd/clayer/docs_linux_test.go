package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/github/githubtest"
	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
)

// A docBlock is a fenced block of commands in a page.
type docBlock struct {
	line   int
	kind   string // "sh", or "console" where output is shown
	text   string
	before string // commands of an HTML comment above: <!-- before: ... -->
	not    string // why it is not run: <!-- not run: ... -->
}

var docComment = regexp.MustCompile(`^<!-- (before|not run): (.*) -->$`)

func docBlocks(t *testing.T, page string) (blocks []docBlock) {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var open *docBlock
	var next docBlock
	fenced := false // in a block of another kind
	for i, line := range strings.Split(string(data), "\n") {
		m := docComment.FindStringSubmatch(line)
		switch {
		case open != nil && line == "```":
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.text += line + "\n"
		case fenced:
			fenced = line != "```"
		case m != nil && m[1] == "before":
			next.before += m[2] + "\n"
		case m != nil:
			next.not = m[2]
		case line == "```sh" || line == "```console":
			b := next
			b.line, b.kind = i+1, line[3:]
			open, next = &b, docBlock{}
		case strings.HasPrefix(line, "```"):
			fenced, next = true, docBlock{}
		case line != "":
			next = docBlock{}
		}
	}
	return blocks
}

// mostNotRun is how many blocks may be left out, each with a reason.
const mostNotRun = 4

// TestDocs runs every block of commands of README.md and docs/*.md, those of a
// page in order, in a folder that holds testdata/docs/common and what stands in
// testdata/docs/PAGE, for README.md testdata/hello. The root that is changed is a
// small one of the test's own; GitHub is one on loopback, with the repository
// me/env; apt-get, uv, npm and mojo are pretended. Where a block shows output it is
// compared, but for times, sizes and digests; a line "..." stands for any lines.
func TestDocs(t *testing.T) {
	requireMounts(t)
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	binary := clitest.Build(t, t.TempDir()) // a shim runs the program that made it
	notRun := 0
	for _, page := range append(pages, filepath.Join("..", "..", "README.md")) {
		blocks := docBlocks(t, page)
		if len(blocks) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			d := newDocs(t, strings.TrimSuffix(filepath.Base(page), ".md"), binary)
			for _, b := range blocks {
				if b.not != "" {
					notRun++
					continue
				}
				if b.before != "" {
					d.script(b.line, b.before)
				}
				if b.kind == "sh" {
					d.script(b.line, b.text)
				} else {
					d.console(b.line, b.text)
				}
			}
		})
	}
	if notRun > mostNotRun {
		t.Errorf("%d blocks are not run, at most %d may be", notRun, mostNotRun)
	}
}

// docs is where the commands of a page run.
type docs struct {
	*workspace
	t   *testing.T
	env []string
}

func newDocs(t *testing.T, page, binary string) *docs {
	w := newWorkspace(t)
	d := &docs{workspace: w, t: t}
	copies := [][2]string{{"docs/common", "."}, {"docs/" + page, "."}}
	if page == "README" { // it shows the Containerfile that it runs first
		copies = append(copies, [2]string{"hello", "."}, [2]string{"hello", "testdata/hello"})
	}
	for _, c := range copies {
		from := filepath.Join("..", "..", "testdata", c[0])
		if _, err := os.Stat(from); err != nil {
			continue
		}
		err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(from, path)
			to := w.path(filepath.Join("project", c[1], rel))
			if e.IsDir() {
				return os.MkdirAll(to, 0o755)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(to, data, 0o644) // what stands there was common
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "home/secrets", "project"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := func(path, text string) {
		if err := os.WriteFile(w.path(path), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Whatever a page says, the machine's own root is left alone.
	if err := os.WriteFile(w.path("bin/clayer"), []byte(`#!/bin/bash
for a; do case $a in --dest*) unset CLAYER_ROOT;; --) break;; esac; done
exec '`+binary+`' "$@"
`), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"apt-get", "uv", "npm", "mojo"} {
		program("root/bin/"+name, `case "$*" in *install*) mkdir -p /opt/installed && for a; do :; done && echo "$a" > "/opt/installed/`+name+`-$a";; esac`+"\n")
		// PATH is the session's in a RUN too. The machine itself is left alone.
		program("bin/"+name, "[ -e /etc/docs-root ] && exec /bin/"+name+` "$@"; exit 0`+"\n")
	}
	program("root/etc/docs-root", "")
	program("bin/go", `[ "$1 $2" = "run ./cmd/clayer" ] && shift 2 && exec clayer "$@"; echo "only go run is pretended" >&2; exit 1`+"\n")
	program("root/bin/mojo", `case $1 in --version) echo mojo 1.0;; precompile) if [ "$2" = lib ]; then echo "error: no such module: numpy"; exit 2; fi; echo "$@" > /opt/precompiled;; esac`+"\n")
	gh := githubtest.New(t)
	gh.Repo("me/env", githubtest.Repo{})
	gh.Repo("me/mojo", githubtest.Repo{Files: map[string]string{"bin/README": "mojo\n"}})
	gh.Token("ghp_test0123456789", "write")
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "CLAYER_") && !strings.HasPrefix(name, "GH_") && !strings.HasPrefix(name, "GITHUB_") && !strings.HasPrefix(name, "CLAUDE_") &&
			!strings.HasPrefix(name, "XDG_") {
			d.env = append(d.env, kv)
		}
	}
	d.env = append(d.env,
		"CLAYER_ROOT="+w.path("root"), "PATH="+w.path("bin")+":"+os.Getenv("PATH"), "HOME="+w.path("home"), "SHELL=/bin/sh", "CLAYER_CACHE_DIR="+w.path("cache"),
		"GITHUB_API_URL="+gh.URL, "GITHUB_SERVER_URL="+gh.URL, "GH_TOKEN=ghp_test0123456789")
	return d
}

func (d *docs) bash(script string) (string, error) {
	cmd := exec.CommandContext(d.t.Context(), "bash", "-c", script)
	cmd.Dir, cmd.Env = d.path("project"), d.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// script runs a block of commands that all have to work.
func (d *docs) script(line int, text string) {
	d.t.Helper()
	if out, err := d.bash("set -eu\n" + text); err != nil {
		d.t.Errorf("line %d: %v\n%s\n%s", line, err, text, out)
	}
}

// console runs each command behind "$ ", and compares what it prints. One that
// is to fail says so: "$ clayer verify   # exits with 1".
func (d *docs) console(line int, text string) {
	d.t.Helper()
	type step struct {
		cmd, want string
		code      int
	}
	var steps []step
	for l := range strings.Lines(text) {
		if cmd, ok := strings.CutPrefix(l, "$ "); ok {
			s := step{cmd: cmd}
			if m := regexp.MustCompile(`# exits with (\d+)$`).FindStringSubmatch(strings.TrimSpace(cmd)); m != nil {
				s.code, _ = strconv.Atoi(m[1])
			}
			steps = append(steps, s)
		} else if len(steps) > 0 {
			steps[len(steps)-1].want += l
		}
	}
	var script strings.Builder
	for _, s := range steps {
		script.WriteString(s.cmd + "printf '\\001%d\\001' $?\n")
	}
	out, err := d.bash(script.String())
	if err != nil {
		d.t.Fatalf("line %d: %v\n%s", line, err, out)
	}
	parts := strings.Split(out, "\x01")
	for i, s := range steps {
		if 2*i+1 >= len(parts) {
			d.t.Fatalf("line %d: $ %snever ran:\n%s", line, s.cmd, out)
		}
		got := steadyDoc(parts[2*i], d.dir)
		if code := parts[2*i+1]; code != fmt.Sprint(s.code) {
			d.t.Errorf("line %d: $ %sexit code %s\n%s", line, s.cmd, code, parts[2*i])
		}
		if !linesMatch(steadyDoc(s.want, d.dir), got) {
			d.t.Errorf("line %d: $ %sprints\n%s\nand not\n%s", line, s.cmd, parts[2*i], s.want)
		}
	}
}

// steadyDoc is a text without what is not the same in each run, a line each.
func steadyDoc(text, dir string) []string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, dir+"/project/", ""), dir, "")
	for _, u := range unsteadyDoc {
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

var unsteadyDoc = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\b[0-9a-f]{12,64}\b`), "DIGEST"},
	{regexp.MustCompile(` ?\(~[^)]*\)| ~\d+(ms|s|m)[\dms]*\b`), ""}, // estimates: there are none below a second
	{regexp.MustCompile(`~?\b\d+(\.\d+)? ?(s|ms|min)\b`), "TIME"},
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
