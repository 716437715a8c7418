package oracle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clayer/clayer/internal/treetest"
)

// patience bounds a build that does not end. It is no measure of speed.
const patience = 3 * time.Minute

// A player plays cases, several at a time.
type player struct {
	*buildkit
	*clayer
	dir      string
	baseTree []string

	mu     sync.Mutex
	counts map[string]int // of instructions: compared, refused by both, by the name of a difference
	strict bool           // no difference is an excuse
}

func (p *player) count(what string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[what] += n
}

// excuse returns the difference that is known of instruction i; clayer's refusal of
// it is nil before anything is built.
func (p *player) excuse(c *Case, i int, r *refusal) *difference {
	if p.strict {
		return nil
	}
	for _, d := range differences {
		if r == nil && d.applies != nil && d.applies(c, i) || r != nil && d.says != nil && d.says.MatchString(r.said) {
			return d
		}
	}
	return nil
}

// play returns how clayer differs from BuildKit in a case, "" if it does not. If they
// differ, and instructions have a known difference, the case is played without these.
func (p *player) play(ctx context.Context, c *Case, ways []*way) (string, error) {
	difference, err := p.playAll(ctx, c, ways)
	if difference == "" || err != nil {
		return difference, err
	}
	rest := c
	for i := 0; i < len(rest.Lines); {
		if d := p.excuse(rest, i, nil); d != nil {
			p.count(d.name, 1)
			rest = rest.without(i)
			continue
		}
		i++
	}
	if len(rest.Lines) == len(c.Lines) {
		return difference, nil
	}
	return p.playAll(ctx, rest, ways)
}

// playAll plays a case. Instructions that both refuse are left out, and those that only
// one refuses, if that is known.
func (p *player) playAll(ctx context.Context, c *Case, ways []*way) (string, error) {
	for {
		next, difference, err := p.once(ctx, c, ways)
		if next == nil || err != nil {
			if difference == "" {
				p.count("compared", len(c.Lines))
			}
			return difference, err
		}
		c = next
	}
}

// once builds a case. If an instruction is to be left out, it returns what is next.
func (p *player) once(ctx context.Context, c *Case, ways []*way) (next *Case, difference string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dir, err := os.MkdirTemp(p.dir, "case-")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // a plain user has to reach it
		return nil, "", err
	}
	files, archive, want := filepath.Join(dir, "context"), filepath.Join(dir, "tree.tar"), filepath.Join(dir, "buildkit")
	if err := os.Mkdir(files, 0o755); err != nil {
		return nil, "", err
	}
	if err := c.write(files); err != nil {
		return nil, "", err
	}
	refused, err := p.build(ctx, files, archive)
	if err != nil {
		return nil, "", err
	}
	if refused != nil {
		return p.alsoRefused(ctx, c, dir, refused)
	}
	if err := unpack(ctx, archive, want); err != nil {
		return nil, "", err
	}
	tree, err := describe(want)
	if err != nil {
		return nil, "", err
	}
	for i, w := range ways {
		if !w.fits(c) {
			continue
		}
		root, refused, err := p.solve(ctx, w, files, filepath.Join(dir, fmt.Sprint("way-", i)))
		if err != nil {
			return nil, "", err
		}
		if refused != nil {
			if next := p.excused(c, refused); next != nil {
				return next, "", nil
			}
			return nil, fmt.Sprintf("BuildKit builds it, clayer (%s) does not:\n%s", w, refused.said), nil
		}
		got, err := describe(root)
		if err != nil {
			return nil, "", err
		}
		p.count(w.name, 1)
		want, got := w.compared(tree, got, p.baseTree)
		if !slices.Equal(want, got) {
			return nil, fmt.Sprintf("the trees differ (-BuildKit +clayer, %s):\n%s", w, diff(want, got)), nil
		}
	}
	return nil, "", nil
}

// excused returns the case without an instruction that clayer refuses for a known
// difference, and nil if there is none.
func (p *player) excused(c *Case, r *refusal) *Case {
	for _, line := range r.lines {
		if i := c.lineOf(line); i >= 0 {
			if d := p.excuse(c, i, r); d != nil {
				p.count(d.name, 1)
				return c.without(i)
			}
		}
	}
	return nil
}

// alsoRefused checks that clayer refuses the instruction that BuildKit refuses, after those
// that both can do.
func (p *player) alsoRefused(ctx context.Context, c *Case, dir string, r *refusal) (*Case, string, error) {
	line := r.lines[0]
	i := c.lineOf(line)
	if i < 0 {
		return nil, "", fmt.Errorf("BuildKit refuses line %d:\n%s", line, r.said)
	}
	files := filepath.Join(dir, "context")
	short := &Case{c.Lines[:i+1], c.Files}
	if err := os.WriteFile(filepath.Join(files, containerfile), []byte(atServer(short.Text())), 0o644); err != nil {
		return nil, "", err
	}
	_, got, err := p.solve(ctx, always[0], files, filepath.Join(dir, "refused"))
	if err != nil {
		return nil, "", err
	}
	switch {
	case got == nil:
		if unsteady.MatchString(r.said) {
			return c.without(i), "", nil
		}
		if d := p.excuse(c, i, r); d != nil {
			p.count(d.name, 1)
			return c.without(i), "", nil
		}
		return nil, fmt.Sprintf("clayer builds it, BuildKit does not:\n%s", r.said), nil
	case !slices.Contains(got.lines, line):
		if next := p.excused(c, got); next != nil {
			return next, "", nil
		}
		if strings.HasPrefix(c.Lines[i], "COPY --from=") {
			return c.without(i), "", nil // BuildKit looks for the sources of all of them at once
		}
		if d := p.excuse(c, i, r); d != nil { // and clayer, which builds this line, refuses one before it
			p.count(d.name, 1)
			return c.without(i), "", nil
		}
		return nil, fmt.Sprintf("BuildKit refuses line %d:\n%s\nclayer refuses another:\n%s", line, r.said, got.said), nil
	}
	p.count("refused by both", 1)
	return c.without(i), "", nil
}

// tar has no hard links of links.
var linked = regexp.MustCompile(`^("(?:[^"\\]|\\.)*" symlink .*) link=".*"`)

var times = regexp.MustCompile(`^("(?:[^"\\]|\\.)*" \w+ \d+ \d+:\d+) \d+\.\d{9}`)

// describe returns a line for each file of a tree, without times. What mounts hide,
// what clayer knows of the root, and what steps leave in /tmp are not of the result.
func describe(root string) ([]string, error) {
	lines, err := treetest.Lines(root, func(path string) bool {
		switch path {
		case "dev", "proc", "sys", "run", "var/lib/clayer", "work":
			return true
		}
		return strings.HasPrefix(path, "tmp/") || strings.HasPrefix(path, "var/tmp/")
	})
	names := make(map[string]int) // of a file, as far as they are of the result
	for _, l := range lines {
		names[sameFile.FindString(l)]++
	}
	for i, l := range lines {
		if link := sameFile.FindString(l); names[link] == 1 {
			l = strings.Replace(l, link, "", 1)
		}
		lines[i] = linked.ReplaceAllString(times.ReplaceAllString(l, "$1"), "$1")
	}
	return lines, err
}

// diff returns the lines that only one of two trees has.
func diff(want, got []string) string {
	var b strings.Builder
	for _, l := range want {
		if _, ok := slices.BinarySearch(got, l); !ok {
			fmt.Fprintln(&b, "-", l)
		}
	}
	for _, l := range got {
		if _, ok := slices.BinarySearch(want, l); !ok {
			fmt.Fprintln(&b, "+", l)
		}
	}
	return b.String()
}
