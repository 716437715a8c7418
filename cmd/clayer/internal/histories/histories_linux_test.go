package histories

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/rounds"
	"github.com/clayer/clayer/internal/treetest"
)

var (
	flagSeed  = flag.Uint64("histories.seed", 0, "the first seed; 0: a random one")
	flagCount = flag.Int("histories.count", -1, "how many histories; -1: as many as the tier has")
	flagExe   = flag.String("histories.exe", "", "the program; empty: it is built")
)

// plainUser has no rights and no name on any machine.
const plainUser = 424242

// A mode is how the root is changed.
type mode struct {
	place         string // --root, --dest, or / of a chroot
	inPlace, user bool
}

func (m mode) String() string {
	text := m.place
	if m.inPlace {
		text += ", in place"
	}
	if m.user {
		text += ", plain user"
	}
	return text
}

// An action is a command. The recipe of a solve is a list of numbered instructions, which
// index the pool of the history.
type action struct {
	kind   string // solve, fail, kill, undo
	recipe []string
	after  time.Duration // until a kill
}

func (a action) String() string {
	return fmt.Sprintf("%s\n    %s", a.kind, strings.Join(a.recipe, "\n    "))
}

type history struct {
	mode    mode
	actions []action
}

func (h *history) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", h.mode)
	for i, a := range h.actions {
		fmt.Fprintf(&b, "  action %d: %s\n", i, a)
	}
	return b.String()
}

// TestHistories shows that a root does not depend on what was done to it before.
func TestHistories(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox-static is not installed")
	}
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exe := *flagExe
	if exe == "" {
		exe = filepath.Join(dir, "clayer")
		cmd := exec.Command("go", "build", "-C", "../..", "-o", exe)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	p := &player{exe: exe, busybox: busybox, dir: dir}
	seed, count := *flagSeed, *flagCount
	if seed == 0 {
		seed = rand.Uint64N(1_000_000_000) + 1
	}
	enough := time.Now().Add(24 * time.Hour)
	if count < 0 {
		count = rounds.Of(2, 4, 50)
		enough = time.Now().Add(3 * time.Minute) // on a busy machine, fewer
	}
	t.Logf("the seeds are %d to %d", seed, seed+uint64(count)-1)
	var wg sync.WaitGroup
	var mu sync.Mutex
	next, failed := uint64(0), false
	for range 3 {
		wg.Go(func() {
			for {
				mu.Lock()
				s := seed + next
				if next == uint64(count) || failed || time.Now().After(enough) {
					mu.Unlock()
					return
				}
				next++
				mu.Unlock()
				h := generate(s)
				err := p.play(t, h)
				if err == nil {
					continue
				}
				mu.Lock()
				failed = true
				mu.Unlock()
				t.Logf("seed %d fails: %v\n%s", s, err, h)
				h, err = p.shrink(t, h, err)
				t.Errorf("seed %d: %v\n%s", s, err, h)
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d histories, %d actions; %d times a RUN in place had replaced what cannot come back", next, count, p.actions.Load(), p.lost.Load())
}

// generate draws a history from a seed.
func generate(seed uint64) *history {
	rng := rand.New(rand.NewPCG(seed, 0))
	h := &history{mode: mode{place: pick(rng, "--root", "--dest", "--dest", "/"), user: rng.IntN(2) == 0}}
	h.mode.inPlace = h.mode.place != "--dest" && rng.IntN(3) == 0
	var recipe []string
	for range 2 + rng.IntN(3) {
		recipe = append(recipe, instruction(rng, h.mode.inPlace))
	}
	for range 12 {
		switch n := rng.IntN(10); {
		case n < 5: // edit
			recipe = append([]string(nil), recipe...)
			i := rng.IntN(len(recipe))
			switch rng.IntN(4) {
			case 0:
				recipe[i] = instruction(rng, h.mode.inPlace)
			case 1:
				recipe = append(recipe, instruction(rng, h.mode.inPlace))
			case 2:
				if len(recipe) > 1 {
					recipe = append(recipe[:i], recipe[i+1:]...)
				}
			case 3:
				j := rng.IntN(len(recipe))
				recipe[i], recipe[j] = recipe[j], recipe[i]
			}
			h.actions = append(h.actions, action{kind: "solve", recipe: recipe})
		case n < 7:
			broken := append(append([]string(nil), recipe...), "RUN mkdir -p /opt/half && exit 3")
			h.actions = append(h.actions, action{kind: "fail", recipe: broken})
		case n < 8:
			h.actions = append(h.actions, action{kind: "kill", recipe: recipe, after: time.Duration(rng.IntN(200)) * time.Millisecond})
		case n < 9:
			h.actions = append(h.actions, action{kind: "undo"})
		default:
			h.actions = append(h.actions, action{kind: "solve", recipe: recipe})
		}
	}
	h.actions = append(h.actions, action{kind: "solve", recipe: recipe})
	return h
}

func pick(rng *rand.Rand, from ...string) string { return from[rng.IntN(len(from))] }

// replaces are the kinds of a RUN that may delete what an earlier step made. In place, that
// cannot come back when the RUN is removed, so they are rarer.
var replaces = map[int]bool{3: true, 4: true, 5: true, 9: true}

// instruction draws one of a Containerfile. RUN ignores its own failures: what matters is
// what it did. What a RUN in place replaced cannot come back, so that there it changes
// only what steps made.
func instruction(rng *rand.Rand, inPlace bool) string {
	dirs := []string{"/etc/h", "/opt/h", "/usr/share/h", "/srv/h", "/srv/new", "/opt/to-etc", "/usr"}
	if inPlace {
		dirs = []string{"/srv/new", "/opt/new"}
	}
	dir := func() string { return pick(rng, dirs...) }
	at := func() string { return dir() + "/" + pick(rng, "a", "b", "c", "d") }
	whole := dirs[rng.IntN(min(len(dirs), 5))]
	n := rng.IntN(1000)
	kind := rng.IntN(15)
	if inPlace && replaces[kind] && rng.IntN(3) > 0 {
		kind = 0
	}
	switch kind {
	case 0, 1:
		p := at()
		return fmt.Sprintf("RUN mkdir -p $(dirname %s); echo %d > %s; true", p, n, p)
	case 2:
		return fmt.Sprintf("RUN mkdir -p %s || true", at())
	case 3:
		return fmt.Sprintf("RUN rm -rf %s", at())
	case 4:
		return fmt.Sprintf("RUN rm -rf %s", whole)
	case 5:
		return fmt.Sprintf("RUN mv %s %s || true", at(), at())
	case 6:
		return fmt.Sprintf("RUN ln -sfn %s %s || true", pick(rng, "a", "/etc/h", "../h", "/nowhere"), at())
	case 7:
		return fmt.Sprintf("RUN chmod %s %s || true", pick(rng, "700", "755", "750"), pick(rng, whole, at()))
	case 8:
		return fmt.Sprintf("RUN cat %s %s >> /srv/log; true", at(), at())
	case 9:
		return fmt.Sprintf("RUN rm -rf %s && mkdir -p %s && echo again > %s/x; true", whole, whole, whole)
	case 10:
		return fmt.Sprintf("WORKDIR %s", at())
	case 11:
		return fmt.Sprintf("COPY %s %s/", pick(rng, "one", "two", "tree"), dir())
	case 12:
		return fmt.Sprintf("COPY %s %s", pick(rng, "one", "two"), at())
	case 13:
		return fmt.Sprintf("COPY tree %s", at())
	default:
		return fmt.Sprintf("COPY one two %s/", at())
	}
}

// look lists what a RUN sees, without what differs from one build to another.
const look = `RUN find /etc /opt /srv /usr/share /var/tmp ! -name seen -exec stat -c '%n %F %s %a' {} + 2>&1 | grep -v directory | sort > /srv/seen; ` +
	`find /etc /opt /srv /usr/share -type d -exec stat -c '%n %F %a' {} + 2>&1 | sort >> /srv/seen; find /srv /opt /etc -type l -exec readlink {} + 2>&1 | sort >> /srv/seen; cat /etc/h/* /srv/h/* >> /srv/seen 2>/dev/null; true`

func containerfile(recipe []string) string {
	var b strings.Builder
	b.WriteString("FROM machine\n")
	for _, in := range recipe {
		fmt.Fprintf(&b, "%s\n", in)
	}
	fmt.Fprintf(&b, "%s\n", look)
	return b.String()
}

// A player plays histories.
type player struct {
	exe, busybox, dir string
	actions, lost     atomic.Int64 // how many were played, and lost something
}

// A ground is where a history takes place.
type ground struct {
	*player
	dir   string
	mode  mode
	known map[string]string // the trees from scratch, by recipe
}

func (p *player) ground(m mode) (*ground, error) {
	dir, err := os.MkdirTemp(p.dir, "ground")
	if err != nil {
		return nil, err
	}
	g := &ground{player: p, dir: dir, mode: m, known: make(map[string]string)}
	return g, g.make()
}

func (g *ground) path(names ...string) string {
	return filepath.Join(append([]string{g.dir}, names...)...)
}

// make makes the base: a small merged-usr system, and files for steps to change.
func (g *ground) make() error {
	script := `set -e; umask 022; mkdir -p base/out base/work work/ctx/tree/sub work/home work/tmp work/cache; cd base
mkdir -p usr/bin usr/lib usr/share/h etc/h/d opt/h/d srv/h root tmp proc dev sys run var/lib var/tmp
ln -s usr/bin bin; ln -s usr/lib lib; ln -s /etc/h opt/to-etc; cp ` + g.busybox + ` usr/bin/busybox
for a in sh cat ls mkdir rm mv ln chmod find stat sort dirname grep readlink echo touch env sleep; do ln -s busybox usr/bin/$a; done
echo root:x:0:0::/root:/bin/sh > etc/passwd; echo root:x:0: > etc/group
for d in etc opt srv usr/share; do echo base > $d/h/a; echo base > $d/h/base; done
echo deep > etc/h/d/deep; echo deep > opt/h/d/deep; ln -s a srv/h/link; chmod 750 opt/h/d
mknod dev/null c 1 3; chmod 666 dev/null; chmod 1777 tmp var/tmp
ln ` + g.exe + ` ../work/clayer || cp ` + g.exe + ` ../work/clayer; cd ../work/ctx; echo one > one; echo two > two; chmod 755 two; echo t > tree/t; echo s > tree/sub/s; ln -s t tree/l
cd ../..; find . -exec touch -h -d @1000000000 {} +`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = g.dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the base: %w\n%s", err, text)
	}
	if err := os.Chmod(g.dir, 0o755); err != nil {
		return err
	}
	if !g.mode.user {
		return nil
	}
	text, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", plainUser, plainUser), g.dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

// run runs a command, and returns what it prints. One that hangs prints where.
func run(cmd *exec.Cmd) (string, error) { return clitest.Output(cmd, limit, syscall.SIGQUIT) }

// limit is how long a command may take: it hangs then.
const limit = 20 * time.Second

// command returns clayer with the flags of the mode. In a chroot it has mounts of its own.
func (g *ground) command(args ...string) *exec.Cmd {
	at := "" // of work
	switch g.mode.place {
	case "--root":
		at = g.dir
		args = append(args, "--root", g.path("base"))
	case "--dest":
		args = append(args, "--dest", "/out")
	}
	if args[0] == "solve" {
		args = append(args, "--file", at+"/work/ctx/Containerfile", "--yes", "--offline", "--sandbox", "overlay")
		if g.mode.inPlace {
			args[len(args)-1] = "inplace"
		}
	}
	user := ""
	if g.mode.user {
		user = fmt.Sprintf("%d:%d", plainUser, plainUser)
	}
	root := "/"
	if at == "" {
		root = g.path("base")
	}
	cmd := clitest.Confined(root, g.path("work"), user, append([]string{at + "/work/clayer"}, args...)...)
	cmd.Dir = g.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + at + "/work/home", "TMPDIR=" + at + "/work/tmp", "CLAYER_CACHE_DIR=" + at + "/work/cache"}
	return cmd
}

func (g *ground) write(recipe []string) error {
	return os.WriteFile(g.path("work/ctx/Containerfile"), []byte(containerfile(recipe)), 0o644)
}

// times are those in a description.
var times = regexp.MustCompile(` [0-9]{10}\.[0-9]{9}`)

// tree describes the directory that is changed, without times.
func (g *ground) tree(t *testing.T) string {
	dir := g.path("base")
	dest := g.mode.place == "--dest"
	if dest {
		dir = g.path("base/out")
	}
	lines := treetest.Describe(t, dir, func(p string) bool {
		return p == "out" || p == "var/lib/clayer" || dest && (p == "var" || p == "var/lib")
	})
	lines = times.ReplaceAllString(lines, "")
	seen, _ := os.ReadFile(filepath.Join(dir, "srv/seen"))
	return lines + "\nsrv/seen:\n" + string(seen)
}

// play returns what is not as it should be.
func (p *player) play(t *testing.T, h *history) error {
	g, err := p.ground(h.mode)
	if err != nil {
		return err
	}
	defer func() { os.RemoveAll(g.dir) }()
	begin := g.tree(t)
	for i, a := range h.actions {
		p.actions.Add(1)
		switch err := g.act(t, a, begin); {
		case errors.Is(err, errLost):
			p.lost.Add(1)
			os.RemoveAll(g.dir)
			if g, err = p.ground(h.mode); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("action %d: %w", i, err)
		}
	}
	return nil
}

// errLost says that what follows is not as from scratch: it is played on a new root.
var errLost = errors.New("something cannot come back")

// lost reports whether a RUN in place replaced what cannot come back, and clayer said so.
func (g *ground) lost(output string) bool {
	return g.mode.inPlace && (strings.Contains(output, "can't come back") || strings.Contains(output, "cannot be undone"))
}

// act does one thing, and checks the tree where it is known.
func (g *ground) act(t *testing.T, a action, begin string) error {
	if a.kind == "undo" {
		if text, err := run(g.command("undo")); g.lost(text) {
			return errLost
		} else if err != nil {
			return fmt.Errorf("undo: %w\n%s", err, text)
		}
		return difference(t, "base", begin, g.tree(t))
	}
	if err := g.write(a.recipe); err != nil {
		return err
	}
	cmd := g.command("solve")
	if a.kind == "kill" {
		_, _ = clitest.Output(cmd, a.after, syscall.SIGKILL)
		return nil
	}
	out, err := run(cmd)
	want := 0
	if a.kind == "fail" {
		want = 1
	}
	if g.lost(out) {
		return errLost
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		scratch, serr := g.scratch(a.recipe)
		if serr == nil {
			defer os.RemoveAll(scratch.dir)
		}
		if serr == nil && scratch.code == code {
			return nil // it fails from scratch too
		}
		return fmt.Errorf("exit code %d instead of %d: %w\n%s", code, want, err, out)
	}
	if a.kind == "fail" {
		return nil
	}
	id := strings.Join(a.recipe, "\n")
	if g.known[id] == "" {
		scratch, err := g.scratch(a.recipe)
		if err != nil {
			return err
		}
		defer os.RemoveAll(scratch.dir)
		if scratch.code != 0 {
			return fmt.Errorf("it succeeds, but fails from scratch, with exit code %d:\n%s", scratch.code, scratch.output)
		}
		g.known[id] = scratch.tree(t)
	}
	if err := difference(t, "from scratch", g.known[id], g.tree(t)); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// A built is a ground after one solve.
type built struct {
	*ground
	code   int
	output string
}

// scratch solves a recipe where nothing was done before.
func (g *ground) scratch(recipe []string) (*built, error) {
	s, err := g.ground(g.mode)
	if err != nil {
		return nil, err
	}
	if err := s.write(recipe); err != nil {
		return nil, err
	}
	cmd := s.command("solve")
	text, _ := run(cmd)
	return &built{s, cmd.ProcessState.ExitCode(), text}, nil
}

func difference(t *testing.T, name, want, got string) error {
	if want == got {
		return nil
	}
	expected, found := strings.Split(want, "\n"), strings.Split(got, "\n")
	in := func(all []string) map[string]bool {
		m := make(map[string]bool)
		for _, l := range all {
			m[l] = true
		}
		return m
	}
	w, g := in(expected), in(found)
	var b strings.Builder
	fmt.Fprintf(&b, "the tree differs (- %s, + now):", name)
	for _, l := range expected {
		if !g[l] {
			fmt.Fprintf(&b, "\n- %s", l)
		}
	}
	for _, l := range found {
		if !w[l] {
			fmt.Fprintf(&b, "\n+ %s", l)
		}
	}
	return fmt.Errorf("%s", b.String())
}

// shrink leaves out actions and instructions as long as the history fails.
func (p *player) shrink(t *testing.T, h *history, err error) (*history, error) {
	deadline := time.Now().Add(time.Minute)
	for again := true; again; {
		again = false
		for i := len(h.actions) - 1; i >= 0; i-- {
			if time.Now().After(deadline) {
				return h, err
			}
			less := &history{mode: h.mode}
			less.actions = append(append(less.actions, h.actions[:i]...), h.actions[i+1:]...)
			if e := p.play(t, less); e != nil {
				h, err, again = less, e, true
			}
		}
		for i := range h.actions {
			for j := len(h.actions[i].recipe) - 1; j >= 0; j-- {
				if time.Now().After(deadline) {
					return h, err
				}
				less := &history{mode: h.mode, actions: append([]action(nil), h.actions...)}
				r := less.actions[i].recipe
				less.actions[i].recipe = append(append([]string(nil), r[:j]...), r[j+1:]...)
				if e := p.play(t, less); e != nil {
					h, err, again = less, e, true
				}
			}
		}
	}
	return h, err
}
