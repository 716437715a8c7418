package lives

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
)

// limit is how long a command may take: it hangs then.
const limit = 20 * time.Second

// A player plays lives.
type player struct {
	exe, template, dir string

	show func(format string, args ...any) // what commands print, if somebody asks

	actions, ran, restored, lost, refused atomic.Int64
}

// A ground is where a life takes place: two machines, and a store for both.
type ground struct {
	*player
	dir           string
	life          *Life
	first, second *machine
	recipe        []string
	cut           bool // clayer was killed, and has not recovered
	shims         bool // something was installed through the shim, as by a RUN in place
}

// A machine is a root, and what the test knows of it.
type machine struct {
	g     *ground
	name  string
	own   []string // commands that made it what it is
	base  facts    // without what clayer applied
	loose []facts  // what installs through the shim added: a step\'s, if its line was adopted, or the machine\'s
	home  string

	ranLast int // how many steps ran in the last solve
}

func (p *player) ground(l *Life) (*ground, error) {
	dir, err := os.MkdirTemp(p.dir, "life")
	if err != nil {
		return nil, err
	}
	l = l.clone()
	if l.Plain {
		l.Root = !l.InPlace // in a chroot nobody makes a user namespace, and he makes no chroot
	}
	g := &ground{player: p, dir: dir, life: l, recipe: l.Recipe}
	for _, d := range []string{"work/context", "work/store", "work/tmp", "work/first", "work/second", "work/bare"} {
		if err := os.MkdirAll(g.path(d), 0o777); err != nil {
			return g, err
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(g.path("work/store"), 0o777), os.WriteFile(g.path("work/context/conf"), []byte("conf\n"), 0o644)); err != nil {
		return g, err
	}
	if err := os.Link(p.exe, g.path("work/clayer")); err != nil {
		return g, err
	}
	if g.first, err = g.machine("first", "/root", slices.Concat(l.Own, l.First)); err != nil {
		return g, err
	}
	home := "/root"
	if l.Home {
		home = "/home/me"
	}
	if g.second, err = g.machine("second", home, slices.Concat(l.Own, l.Second)); err != nil {
		return g, err
	}
	return g, g.write(g.recipe)
}

func (g *ground) path(names ...string) string {
	return filepath.Join(append([]string{g.dir}, names...)...)
}

func (g *ground) user() string {
	if g.life.Plain {
		return fmt.Sprintf("%d:%d", plainUser, plainUser)
	}
	return ""
}

// machine makes a machine.
func (g *ground) machine(name, home string, own []string) (*machine, error) {
	m := &machine{g: g, name: name, own: own, home: home}
	if err := os.RemoveAll(m.root()); err != nil {
		return m, err
	}
	if text, err := exec.Command("cp", "-a", g.template, m.root()).CombinedOutput(); err != nil {
		return m, fmt.Errorf("%w: %s", err, text)
	}
	if g.life.Plain {
		if text, err := exec.Command("chown", "-R", g.user(), m.root(), g.path("work")).CombinedOutput(); err != nil {
			return m, fmt.Errorf("%w: %s", err, text)
		}
	}
	if _, err := m.shell("mkdir -p " + home + "\n{ " + strings.Join(append(own, "true"), "\n} || :\n{ ") + "\n}"); err != nil {
		return m, err
	}
	var err error
	m.base, err = read(m.root())
	return m, err
}

func (m *machine) root() string { return m.g.path(m.name) }

func (m *machine) env(at string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + m.home, "TMPDIR=" + at + "/work/tmp",
		"CLAYER_CACHE_DIR=" + at + "/work/" + m.name, "XDG_STATE_HOME=" + at + "/work/" + m.name + ".state"}
	if m.g.life.Plain {
		env = append(env, "PLAIN=1")
	}
	return env
}

// shell runs a script on a machine, without clayer.
func (m *machine) shell(script string) (string, error) {
	cmd := clitest.Confined(m.root(), m.g.path("work"), m.g.user(), "/bin/sh", "-c", script)
	cmd.Env = m.env("")
	out, err := clitest.Output(cmd, limit, syscall.SIGKILL)
	if m.g.show != nil {
		m.g.show("%s: %s: %v\n%s", m.name, script, err, out)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return out, err
}

// clayer returns a command of clayer on a machine.
func (m *machine) clayer(args ...string) *exec.Cmd {
	at, root := "", m.root()
	if m.g.life.Root {
		at, root = m.g.dir, "/"
		args = append(args, "--root", m.root())
	}
	if args[0] == "solve" || args[0] == "plan" || args[0] == "status" {
		args = append(args, "--file", at+"/work/context/Containerfile", "--store", "dir:"+at+"/work/store", "--sandbox", "overlay")
		if m.g.life.InPlace && (m == m.g.first || m.g.life.Plain) {
			args[len(args)-1] = "inplace"
		}
	}
	if args[0] == "solve" {
		args = append(args, "--yes", "--offline")
	}
	cmd := clitest.Confined(root, m.g.path("work"), m.g.user(), append([]string{at + "/work/clayer"}, args...)...)
	cmd.Dir, cmd.Env = m.g.dir, m.env(at)
	return cmd
}

func (m *machine) run(args ...string) (string, error) {
	out, err := clitest.Output(m.clayer(args...), limit, syscall.SIGQUIT)
	if m.g.show != nil {
		m.g.show("%s: clayer %s: %v\n%s", m.name, strings.Join(args, " "), err, out)
	}
	return out, err
}

// write writes the Containerfile.
func (g *ground) write(lines []string) error {
	file := g.path("work/context/Containerfile")
	if err := os.WriteFile(file, []byte(containerfile(lines)), 0o644); err != nil || !g.life.Plain {
		return err
	}
	return os.Chown(file, plainUser, plainUser)
}

// play returns what is not as it should be.
func (p *player) play(l *Life) error {
	g, err := p.ground(l)
	defer func() { os.RemoveAll(g.dir) }()
	if err != nil {
		return err
	}
	for i, a := range l.Actions {
		p.actions.Add(1)
		if p.show != nil {
			p.show("action %d: %+v; the lines are %q", i, a, g.recipe)
		}
		if err := g.act(a); errors.Is(err, errLost) {
			p.lost.Add(1)
			if err := g.renew(); err != nil {
				return err
			}
		} else if err != nil {
			return fmt.Errorf("action %d, %s: %w", i, a.Kind, err)
		}
	}
	return nil
}

// renew makes both machines again, and forgets what was stored: a snapshot may have what a
// RUN in place did before, as a warning says.
func (g *ground) renew() (err error) {
	for _, d := range []string{"work/store", "work/first", "work/second"} {
		if err := g.empty(d); err != nil {
			return err
		}
	}
	if g.first, err = g.machine("first", g.first.home, g.first.own); err != nil {
		return err
	}
	g.second, err = g.machine("second", g.second.home, g.second.own)
	return err
}

// empty removes what is in a directory.
func (g *ground) empty(dir string) error {
	list, err := os.ReadDir(g.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(g.path(dir, e.Name())))
	}
	return err
}

// errLost says that a RUN in place replaced what cannot come back, and clayer said so.
var errLost = errors.New("something cannot come back")

func (g *ground) isLost(output string) bool {
	return (g.life.InPlace || g.shims) && (strings.Contains(output, "can't come back") || strings.Contains(output, "cannot be undone"))
}

// act does one thing, and checks the machines.
func (g *ground) act(a Action) error {
	before := g.recipe
	switch a.Kind {
	case undo:
		g.cut = false
		return g.first.undo()
	case ours:
		if g.cut {
			return nil // nobody could say whose a change is
		}
		return g.first.types(a.Line)
	case theirs:
		return g.second.types(a.Line)
	case fail:
		return g.fail()
	case kill:
		g.cut = true
		_, _ = clitest.Output(g.first.clayer("solve"), time.Duration(a.With)*time.Millisecond, syscall.SIGKILL)
		return nil
	case shimmed:
		if g.cut {
			return nil
		}
		if err := g.shim(a.Line); err != nil {
			return err
		}
	case fresh:
		var err error
		if err := g.empty("work/first"); err != nil {
			return err
		}
		g.cut = false
		if g.first, err = g.machine("first", g.first.home, g.first.own); err != nil {
			return err
		}
	default:
		g.recipe = a.edit(g.recipe)
		if err := g.write(g.recipe); err != nil {
			return err
		}
	}
	g.cut = false
	switch err := g.first.solve(g.recipe); {
	case errors.Is(err, errRefused):
		g.recipe = before
		return g.write(before)
	case err != nil:
		return err
	}
	if err := g.second.solve(g.recipe); err != nil && !errors.Is(err, errRefused) {
		return err
	}
	if !a.Undo {
		return nil
	}
	return g.second.undo()
}

// errRefused says that a recipe fails on a machine with clayer and without.
var errRefused = errors.New("the recipe fails")

var counted = regexp.MustCompile(`(\d+) (ran|restored)`)

// solve applies a recipe, and checks that all is as it should be.
func (m *machine) solve(recipe []string) error {
	out, err := m.run("solve")
	m.ranLast = 0
	for _, c := range counted.FindAllStringSubmatch(lastLine(out), -1) {
		n, _ := strconv.Atoi(c[1])
		if c[2] == "ran" {
			m.ranLast = n
			m.g.ran.Add(int64(n))
		} else {
			m.g.restored.Add(int64(n))
		}
	}
	if m.g.isLost(out) {
		return errLost
	}
	if err != nil {
		if m.fails(recipe) {
			m.g.refused.Add(1)
			return errRefused
		}
		return fmt.Errorf("%s: solve: %w\n%s", m.name, err, out)
	}
	if err := m.check(recipe); err != nil {
		if m.fails(recipe) {
			m.g.refused.Add(1)
			return errRefused
		}
		return fmt.Errorf("%s: after solve: %w\n%s", m.name, err, out)
	}
	return nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// fails reports whether a recipe fails without clayer too, on a machine of this kind.
func (m *machine) fails(recipe []string) bool {
	other, err := m.g.machine(m.name+".other", m.home, m.own)
	defer os.RemoveAll(other.root())
	if err != nil {
		return false
	}
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, line := range recipe {
		if command, ok := strings.CutPrefix(line, "RUN "); ok {
			fmt.Fprintf(&script, "( %s )\n", command)
		}
		if words := strings.Fields(line); words[0] == "COPY" {
			fmt.Fprintf(&script, "mkdir -p $(dirname %s.); cp /work/context/%s %s\n", words[2], words[1], words[2])
		}
	}
	if _, err := other.shell(script.String()); err != nil {
		return true
	}
	return other.check(recipe) != nil
}

// check checks what a machine has after a solve.
func (m *machine) check(recipe []string) error {
	now, err := read(m.root())
	if err != nil {
		return err
	}
	if text := wrong(m.base, now, recipe, m.loose); text != "" {
		return errors.New(text)
	}
	e := effectOfAll(recipe)
	if len(e.probes) == 0 {
		return nil
	}
	_, err = m.shell(`probe "` + strings.Join(e.probes, `" "`) + `"`)
	return err
}

// undo undoes all, and checks that the machine has what it had.
func (m *machine) undo() error {
	out, err := m.run("undo")
	if m.g.isLost(out) {
		return errLost
	}
	if err != nil {
		return fmt.Errorf("%s: undo: %w\n%s", m.name, err, out)
	}
	now, err := read(m.root())
	if err != nil {
		return err
	}
	for _, d := range m.loose { // what is there wholly is the machine's from now on
		if is, _ := now.since(d); len(is) == len(now)-len(d) {
			maps.Copy(m.base, d)
		}
	}
	m.loose = nil
	if text := difference(m.base, now); text != "" {
		return fmt.Errorf("%s: after undo:%s\n%s", m.name, text, out)
	}
	return nil
}

// types runs a command on a machine. What it changes is the machine's.
func (m *machine) types(command string) error {
	before, err := read(m.root())
	if err != nil {
		return err
	}
	touches := effectOf("RUN " + command).touches
	links := make(map[string]int64) // when those that it may make again were made
	for name := range before {
		if matches(touches, name) {
			links[name] = m.changedAt(name)
		}
	}
	_, failed := m.shell(command)
	after, err := read(m.root())
	if err != nil {
		return err
	}
	changed, gone := after.since(before)
	for name, what := range changed {
		m.base[name] = what
	}
	for _, name := range gone {
		delete(m.base, name)
	}
	if failed == nil {
		m.own = append(slices.Clip(m.own), command)
		// A link that it makes again, as a step had made it, is the machine's from now on.
		for name, what := range after {
			if !matches(touches, name) || !strings.HasPrefix(what, "symlink ") || m.changedAt(name) == links[name] {
				continue
			}
			m.base[name] = what
			for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
				m.base[dir] = after[dir]
			}
		}
	}
	return nil
}

// changedAt returns the ctime of a path, in nanoseconds; 0 for none.
func (m *machine) changedAt(name string) int64 {
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(m.root(), name), &st) != nil {
		return 0
	}
	return st.Ctim.Nano()
}

// fail solves with a RUN at the end that fails.
func (g *ground) fail() error {
	before, err := read(g.first.root())
	if err != nil {
		return err
	}
	if err := g.write(append(slices.Clip(g.recipe), "RUN mkdir -p /opt/half && exit 3")); err != nil {
		return err
	}
	out, err := g.first.run("solve")
	if g.isLost(out) {
		return errors.Join(errLost, g.write(g.recipe))
	}
	if err == nil {
		return fmt.Errorf("it succeeds\n%s", out)
	}
	if err := g.write(g.recipe); err != nil {
		return err
	}
	if g.life.InPlace || g.cut {
		g.cut = false
		return nil
	}
	after, err := read(g.first.root())
	if err != nil {
		return err
	}
	if text := difference(before, after); text != "" {
		return fmt.Errorf("it changed the root:%s\n%s", text, out)
	}
	return nil
}

// shim installs something by hand through the shim, which adds a line to the Containerfile.
func (g *ground) shim(command string) error {
	script := "clayer() { /work/clayer \"$@\"; }; clayer shim install --dir /work/shims -f /work/context/Containerfile 2>/dev/null || exit 9; export CLAYER_YES=1; PATH=/work/shims:$PATH; " + command
	m := g.first
	before, err := read(m.root())
	if err != nil {
		return err
	}
	if _, err := m.shell(script); err != nil {
		return err
	}
	after, err := read(m.root())
	if err != nil {
		return err
	}
	changed, _ := after.since(before)
	m.loose = append(m.loose, changed)
	g.shims = true
	data, err := os.ReadFile(g.path("work/context/Containerfile"))
	if err != nil {
		return err
	}
	g.recipe = nil
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "FROM ") {
			g.recipe = append(g.recipe, line)
		}
	}
	return nil
}
