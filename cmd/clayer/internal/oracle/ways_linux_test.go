package oracle

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// extraContext is a directory of a case that is a build context of that name.
const extraContext = "extra"

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// plainUser has no rights, and no name on any machine.
const plainUser = 424242

// A way is how clayer builds a case.
type way struct {
	name    string
	sandbox string
	// split solves two layers, of which the second is FROM the first.
	split bool
	// dest solves with --dest in a chroot of the base.
	dest bool
	// user solves as a plain user, who owns the base.
	user bool
}

func (w *way) String() string { return w.name }

// always are the ways in which each case is built.
var always = []*way{
	{name: "overlay", sandbox: "overlay"},
	{name: "in place", sandbox: "inplace"},
}

// others are those in which a case is built that they can be compared in: all of a case in
// testdata, and one at a time of those at random.
var others = []*way{
	{name: "two layers", sandbox: "overlay", split: true},
	{name: "--dest", sandbox: "overlay", dest: true},
	{name: "plain user", sandbox: "overlay", user: true},
	{name: "two layers, in place", sandbox: "inplace", split: true},
}

// owned is in a case that says who owns what: a plain user has one owner alone.
var owned = regexp.MustCompile(`chown|^USER|\$\{?OWNER|%u|\bid\b|uid=|cp -a|/srv/closed.*;`)

// moved is in a case that moves or removes a top-level directory, or links from one to
// another: in a user namespace each is a mount.
var moved = regexp.MustCompile(`(?m)\b(rm -rf|mv)( \S+)? /(opt|new)([;\s"]|$)|\bln /`)

// fits reports whether what a way makes of a case can be compared.
func (w *way) fits(c *Case) bool {
	switch {
	case w.sandbox == "inplace" && c.inStages(): // it refuses to build them
		return false
	case w.split:
		return c.split() > 0
	case w.dest && strings.Contains(c.Text(), ".git"): // the base has no git
		return false
	case w.user:
		for _, f := range c.Files {
			if f.Mode&0o6000 != 0 { // which is lost where the context becomes this user's
				return false
			}
		}
		return !slices.ContainsFunc(c.Lines, func(l string) bool { return owned.MatchString(l) || moved.MatchString(l) })
	}
	return true
}

// split returns how many instructions the first of two layers has, 0 if the case cannot
// be two: an ARG is not for the layers after it, names of files say which
// .dockerignore a layer has, and stages are of one file.
func (c *Case) split() int {
	_, ignores := c.Files[containerfile+".dockerignore"]
	if ignores || c.inStages() {
		return 0
	}
	n := len(c.Lines) / 2
	if arg := slices.IndexFunc(c.Lines, func(l string) bool { return strings.HasPrefix(l, "ARG") }); arg >= 0 {
		n = min(n, arg)
	}
	return n
}

func (c *Case) inStages() bool {
	return slices.ContainsFunc(c.Lines, func(l string) bool { return strings.HasPrefix(l, "FROM") })
}

// The files of two layers. Each instruction stands at the line that it has in one.
const (
	firstLayer  = containerfile + ".one"
	secondLayer = containerfile + ".two"
)

func (c *Case) writeLayers(dir string) error {
	n := c.split()
	if n == 0 {
		return nil
	}
	first := &Case{Lines: c.Lines[:n]}
	gap := strings.Repeat("\n", strings.Count(first.Text(), "\n"))
	second := "FROM one\n" + gap + strings.Join(c.Lines[n:], "\n\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, firstLayer), []byte(atServer(first.Text())), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, secondLayer), []byte(atServer(second)), 0o644)
}

// args are the program's for a case that is in the directory of work below at.
func (w *way) args(at, root string) []string {
	file := containerfile
	if w.split {
		file = secondLayer
	}
	args := []string{"solve", "--sandbox=" + w.sandbox, "--cache-dir=" + at + "/cache", "-f", at + "/context/" + file}
	if w.dest {
		return append(args, "--dest="+at+"/dest")
	}
	return append(args, "--root="+root)
}

// command returns the program that makes the tree of a case in work from the base at root.
func (c *clayer) command(ctx context.Context, w *way, work, root string) *exec.Cmd {
	at, argv := work, []string{c.program}
	if w.dest {
		at = "/work"
		argv = []string{"unshare", "--mount", "--propagation", "private", "sh", "-c",
			`set -e; mount -t proc proc "$0/proc"; mount --bind "$1" "$0/work"; root=$0; shift; exec chroot "$root" "$@"`, root, work, "/work/clayer"}
	}
	argv = append(argv, w.args(at, root)...)
	if isDir(filepath.Join(work, "context", extraContext)) {
		argv = append(argv, "--build-context="+extraContext+"="+at+"/context/"+extraContext)
	}
	if isDir(filepath.Join(work, "layout")) {
		argv = append(argv, "--build-context="+baseName+"=oci-layout:"+at+"/layout")
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = work
	cmd.Env = []string{"PATH=" + searchPath, "HOME=/root", "TMPDIR=" + at}
	if w.user {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plainUser, Gid: plainUser}}
	}
	return cmd
}

// prepare makes the directory of work of a way, and its base.
func (c *clayer) prepare(ctx context.Context, w *way, files, work string) (root string, err error) {
	root = filepath.Join(work, "root")
	script := `set -e; mkdir "$1"; cp -a "$2" "$1/root"; cp -a "$3" "$1/context"`
	if w.dest {
		script += `; mkdir "$1/root/work" "$1/dest"; ln "$4" "$1/clayer" 2>/dev/null || cp "$4" "$1/clayer"`
	}
	script += `; if grep -q from=` + baseName + ` "$3/` + containerfile + `"; then cp -a "$5" "$1/layout"; fi`
	if w.user {
		script += fmt.Sprintf(`; chown -hR %d:%d "$1"`, plainUser, plainUser)
	}
	out, err := exec.CommandContext(ctx, "sh", "-c", script, "sh", work, c.base, files, c.program, c.asImage).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("prepare %s: %w\n%s", work, err, out)
	}
	return root, nil
}

var (
	owners   = regexp.MustCompile(`^("(?:[^"\\]|\\.)*" \w+ \d+) \d+:\d+`)
	attrs    = regexp.MustCompile(` (?:security|user|trusted)\.\S+=".*`)
	sameFile = regexp.MustCompile(` link="(?:[^"\\]|\\.)*"`)
)

// compared leaves out of the lines of two trees what a way does not tell: the owners that
// a plain user cannot give, and of --dest what the machine has, or has not any more.
func (w *way) compared(want, got, base []string) (_, _ []string) {
	if w.user {
		return edited(want, owners, "$1", attrs, ""), edited(got, owners, "$1", attrs, "")
	}
	if !w.dest {
		return want, got
	}
	want, got, base = edited(want, sameFile, ""), edited(got, sameFile, ""), edited(base, sameFile, "")
	in := func(lines []string) func(string) bool {
		return func(l string) bool { _, ok := slices.BinarySearch(lines, l); return ok }
	}
	changed := slices.DeleteFunc(slices.Clone(want), in(base))
	// A directory above what changed is as on the machine; a file may be there unchanged.
	got = slices.DeleteFunc(got, func(l string) bool { return in(base)(l) && in(want)(l) })
	return changed, got
}

// edited replaces what expressions match in lines; it takes pairs of them.
func edited(lines []string, pairs ...any) []string {
	lines = slices.Clone(lines)
	for i := range lines {
		for j := 0; j < len(pairs); j += 2 {
			lines[i] = pairs[j].(*regexp.Regexp).ReplaceAllString(lines[i], pairs[j+1].(string))
		}
	}
	slices.Sort(lines)
	return lines
}
