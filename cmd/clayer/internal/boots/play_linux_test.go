package boots

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/hosttest"
	"github.com/clayer/clayer/internal/treetest"
)

// writeScript has clayer write the boot script.
func (p *player) writeScript() error {
	cmd := exec.Command(p.exe, "init", "claude", "--print")
	cmd.Dir, cmd.Env = p.dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir}
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	_, script, _ := strings.Cut(string(out), "\n") // ==> its path <==
	script, _, ok := strings.Cut(script, "==> .claude/settings.json <==")
	if !ok {
		return fmt.Errorf("no script in\n%s", out)
	}
	p.script = filepath.Join(p.dir, "boot.sh")
	return os.WriteFile(p.script, []byte(script), 0o755)
}

// A report is what clayer says of a machine.
type report struct {
	State struct {
		Layers []struct {
			Name  string
			Steps []struct{ Digest, Text string }
		}
	}
	CutOff    bool
	Shortfall *struct {
		Layers []short
	}
}

type short struct {
	Name      string
	Steps, Of int
	Wanted    string
	As        string
}

// of returns what is missing of a layer; nil: nothing.
func (r *report) of(name string) *short {
	if r.Shortfall == nil {
		return nil
	}
	for i, s := range r.Shortfall.Layers {
		if s.Name == name {
			return &r.Shortfall.Layers[i]
		}
	}
	return nil
}

// play plays a boot, and returns what clayer printed, and what is not as it should be.
func (p *player) play(b *Boot) (text string, err error) {
	var said strings.Builder
	say := func(text string) { said.WriteString(strings.TrimSpace(text) + "\n") }
	g, err := p.ground(b)
	defer func() { g.remove() }()
	if err == nil {
		err = g.play(say)
	}
	return said.String(), err
}

func (g *ground) play(say func(string)) error {
	if err := g.fill(); err != nil {
		return err
	}
	var link hosttest.Link
	if g.boot.Slow {
		link = hosttest.Link{Rate: 500 << 10, Latency: 10 * time.Millisecond}
	}
	m, err := g.machine("machine", "open", hosttest.Link{})
	if err != nil {
		return err
	}
	base, err := m.tree()
	if err != nil {
		return err
	}
	listed, err := m.listed(say)
	if err != nil {
		return err
	}
	if g.boot.Booted {
		if err := g.write(earlier); err != nil {
			return err
		}
		if out, err := m.start(nil); err != nil {
			return fmt.Errorf("an earlier boot: %w\n%s", err, out)
		}
	}
	if err := errors.Join(g.write(now), m.move(g.boot.Profile, link), m.resize(g.boot.Space, g.boot.Inodes)); err != nil {
		return err
	}
	whole, err := m.spoiled(say)
	if err != nil {
		return err
	}
	if err := errors.Join(m.resize(0, 0), m.move("open", hosttest.Link{})); err != nil {
		return err
	}
	if err := m.check(say, whole, listed); err != nil {
		return fmt.Errorf("after the boot: %w", err)
	}

	// What was wrong is mended.
	if err := g.write(mended); err != nil {
		return err
	}
	out, err := m.start(nil)
	say(out)
	if err != nil {
		return fmt.Errorf("the second boot: %w", err)
	}
	if err := m.isWhole(say); err != nil {
		return fmt.Errorf("after the second boot: %w", err)
	}
	other, err := g.machine("other", "open", hosttest.Link{})
	if err != nil {
		return err
	}
	out, err = other.start(nil)
	say(out)
	if err == nil {
		err = other.isWhole(say)
	}
	if err != nil {
		return fmt.Errorf("another machine: %w", err)
	}
	for _, m := range []*machine{m, other} {
		if _, all, code, err := m.clayer("undo"); err != nil || code != 0 {
			return fmt.Errorf("undo: %v\n%s", err, all)
		}
		is, err := m.tree()
		if err != nil {
			return err
		}
		if text := difference(base, is); text != "" {
			return fmt.Errorf("%s: after undo:%s", m.name, text)
		}
	}
	return nil
}

// start runs the boot script to its end.
func (m *machine) start(env []string) (out string, err error) {
	cmd := m.boots(env)
	out, err = clitest.Output(cmd, limit, syscall.SIGQUIT)
	out = fmt.Sprintf("$ sh boot.sh   # on %s, exit code %d\n%s\n%s", m.name, cmd.ProcessState.ExitCode(), out, m.log())
	return out, err
}

func (m *machine) boots(env []string) *exec.Cmd {
	return m.command(append([]string{"CLAUDE_PROJECT_DIR=/work/project"}, env...), "/bin/sh", "/work/boot.sh")
}

// log is what clayer printed in a boot.
func (m *machine) log() string {
	for _, home := range []string{"root", "home/me"} {
		if text, err := os.ReadFile(filepath.Join(m.root(), home, ".cache/clayer/bin/boot.log")); err == nil {
			return string(text)
		}
	}
	return "(no boot.log)\n"
}

// spoiled runs the boot script while things go wrong. whole: clayer was not killed.
func (m *machine) spoiled(say func(string)) (whole bool, err error) {
	var env []string
	if m.boot.Budget != "" {
		env = append(env, "CLAYER_BUDGET="+m.boot.Budget)
	}
	cmd := m.boots(env)
	s := &spoiler{answers: m.boot.Answers, ended: make(chan struct{})}
	started := make(chan struct{})
	var killing sync.Mutex
	was := false
	k := m.boot.Kill
	doKill := func() {
		<-started
		killing.Lock()
		defer killing.Unlock()
		was = kill(cmd.Process.Pid, k.Whom)
	}
	if k != nil {
		s.at, s.then = k.Request, doKill
	}
	m.host.Before(s.before)
	defer m.host.Before(nil)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return false, err
	}
	close(started)
	if k != nil && k.Request == 0 {
		defer time.AfterFunc(time.Duration(k.After)*time.Millisecond, doKill).Stop()
	}
	hung := false
	defer time.AfterFunc(limit, func() {
		hung = true
		parent, name := processes()
		for pid := range parent {
			if name[pid] == "clayer" {
				_ = syscall.Kill(pid, syscall.SIGQUIT)
			}
		}
		time.Sleep(time.Second)
		kill(cmd.Process.Pid, "script")
	}).Stop()
	_ = cmd.Wait()
	close(s.ended)
	code := cmd.ProcessState.ExitCode()
	say(fmt.Sprintf("$ sh boot.sh   # spoiled; exit code %d\n%s\n%s", code, out.String(), m.log()))
	killing.Lock()
	defer killing.Unlock()
	if was {
		m.count("killed " + k.Whom)
	}
	switch {
	case hung:
		return false, errors.New("the script hangs")
	case was && k.Whom == "script":
		kill(cmd.Process.Pid, "script")
		return false, nil
	case code != 0:
		return false, fmt.Errorf("the script exits with %d", code)
	case out.Len() > 2048:
		return false, fmt.Errorf("the script prints %d bytes", out.Len())
	}
	for _, line := range []string{"is not recorded: ", "cannot set up the environment", "cannot be written"} { // on a full disk
		if strings.Contains(out.String()+m.log(), line) {
			m.count("not recorded")
			return false, nil
		}
	}
	return !was || k.Whom == "children", nil
}

// has returns what the first line of a step's file is; "" for no file.
func (m *machine) has(l Layer, i int) string {
	data, err := os.ReadFile(filepath.Join(m.root(), "opt", l.Name, fmt.Sprint(i)))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// holds reports whether the first n steps of a layer are there as in a version, and whether
// anything of the others is.
func (m *machine) holds(l Layer, n int, v version) (is, more bool) {
	is = true
	for i, s := range l.Steps {
		has := m.has(l, i)
		is = is && (i >= n || has == s.mark(l.Name, i, v))
		more = more || i >= n && has != ""
	}
	_, err := os.Stat(filepath.Join(m.root(), "opt", l.Name, "program"))
	return is && (n <= len(l.Steps) || err == nil), more || n <= len(l.Steps) && err == nil
}

// works reports whether the program of a layer finds all that it needs.
func (m *machine) works(l Layer) error {
	cmd := m.command(nil, "/opt/"+l.Name+"/program")
	out, err := clitest.Output(cmd, limit, syscall.SIGKILL)
	if err == nil && out != l.Name+" works\n" {
		err = errors.New("it prints something else")
	}
	if err != nil {
		return fmt.Errorf("/opt/%s/program: %w\n%s", l.Name, err, out)
	}
	return nil
}

// asks returns what clayer says of the machine.
func (m *machine) asks(say func(string)) (*report, error) {
	stdout, all, code, err := m.clayer("status", "--json")
	if err != nil || code != 0 {
		return nil, fmt.Errorf("status: %v\n%s", err, all)
	}
	r := new(report)
	if err := json.Unmarshal([]byte(stdout), r); err != nil {
		return nil, fmt.Errorf("status --json: %w\n%s", err, stdout)
	}
	_, all, code, err = m.clayer("status", "--report")
	say(all)
	if err != nil || code != 0 {
		return nil, fmt.Errorf("status --report: exit code %d: %v", code, err)
	}
	if lines := strings.Count(all, "\n") - 1; lines > 20 {
		return nil, fmt.Errorf("status --report prints %d lines", lines)
	}
	return r, nil
}

// check checks the machine after a boot. whole: nothing killed clayer.
func (m *machine) check(say func(string), whole bool, listed map[string]bool) error {
	r, err := m.asks(say)
	if err != nil {
		return err
	}
	if r.CutOff {
		m.count("cut off")
		if whole {
			return errors.New("a command was cut off, and nobody killed it")
		}
		return nil // the next command completes it, or takes it back
	}
	if _, all, code, err := m.clayer("verify"); err != nil || code != 0 {
		return fmt.Errorf("verify: %v\n%s", err, all)
	}
	for _, l := range m.boot.Layers {
		n := 0
		for _, applied := range r.State.Layers {
			for _, s := range applied.Steps {
				if applied.Name == l.Name && s.Digest != "" {
					n++
				}
			}
		}
		is, _ := m.holds(l, n, now)
		was, _ := m.holds(l, n, earlier)
		if !is && !was {
			return fmt.Errorf("the state has %d steps of %s, and that is not so", n, l.Name)
		}
	}
	if !whole {
		return nil
	}
	missing := false
	for _, l := range m.boot.Layers {
		s := r.of(l.Name)
		if s == nil {
			m.count("layers ready")
			if err := m.works(l); err != nil {
				return fmt.Errorf("%s is not reported as missing: %w", l.Name, err)
			}
			if is, _ := m.holds(l, len(l.Steps)+1, now); !is {
				return fmt.Errorf("%s is not reported as missing, and is not as its file has it", l.Name)
			}
			continue
		}
		missing = true
		switch is, more := m.holds(l, s.Steps, now); {
		case s.As != "":
			m.count("layers of earlier")
			if err := m.works(l); err != nil {
				return fmt.Errorf("%s is reported as it was: %w", l.Name, err)
			}
		case !is:
			return fmt.Errorf("%d steps of %s are reported, and are not there", s.Steps, l.Name)
		case more && m.boot.Space+m.boot.Inodes > 0 && strings.Contains(m.log(), "sandbox: inplace"):
			m.count("leftovers") // of a RUN on a full disk, whose result is not known
		case more:
			return fmt.Errorf("%d steps of %s are reported, and there are more", s.Steps, l.Name)
		default:
			m.count("layers in part")
		}
	}
	names := make([]string, 0, len(m.boot.Layers))
	for _, l := range m.boot.Layers {
		names = append(names, l.Name)
	}
	_, all, code, err := m.clayer(append([]string{"status", "--exit-code"}, names...)...)
	if err != nil || (code == 1) != missing || code > 1 {
		return fmt.Errorf("status --exit-code: anything is missing: %t; %v\n%s", missing, err, all)
	}
	has, err := m.listed(say)
	if err != nil {
		return err
	}
	for _, l := range m.boot.Layers {
		// On a full disk what was built, and is right, may not fit into the root: the boot of the
		// other machine shows that it is.
		if s := r.of(l.Name); s != nil && m.boot.Space+m.boot.Inodes == 0 && s.Wanted != "" && has[s.Wanted] && !listed[s.Wanted] {
			return fmt.Errorf("%s is not whole, and a store lists it", l.Name)
		}
	}
	if missing {
		m.count("boots that lack something")
	} else {
		m.count("boots that lack nothing")
	}
	return nil
}

var key = regexp.MustCompile(`"key": *"([0-9a-f]{64})"`)

// listed returns the keys of the layers that the stores list.
func (m *machine) listed(say func(string)) (map[string]bool, error) {
	keys := make(map[string]bool)
	stdout, all, code, err := m.clayer("cache", "ls", "--json")
	if err != nil || code != 0 && code != 3 {
		return nil, fmt.Errorf("cache ls: %v\n%s", err, all)
	}
	var list []struct {
		Key string
	}
	if err := json.Unmarshal([]byte(stdout), &list); err != nil {
		for _, k := range key.FindAllStringSubmatch(stdout, -1) {
			keys[k[1]] = true
		}
		return keys, nil
	}
	for _, l := range list {
		keys[l.Key] = true
	}
	return keys, nil
}

// isWhole checks that all layers are there as mended, and nothing else.
func (m *machine) isWhole(say func(string)) error {
	r, err := m.asks(say)
	switch {
	case err != nil:
		return err
	case r.CutOff || r.Shortfall != nil:
		return errors.New("something is missing")
	}
	names := make([]string, 0, len(m.boot.Layers))
	for _, l := range m.boot.Layers {
		names = append(names, l.Name)
		if err := m.works(l); err != nil {
			return err
		}
		if is, _ := m.holds(l, len(l.Steps)+1, mended); !is {
			return fmt.Errorf("%s is not as its file has it", l.Name)
		}
		entries, err := os.ReadDir(filepath.Join(m.root(), "opt", l.Name))
		if err != nil || len(entries) != len(l.Steps)+1 {
			return fmt.Errorf("/opt/%s has %d files, %v", l.Name, len(entries), err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(m.root(), "opt"))
	if err != nil || len(entries) != len(m.boot.Layers) {
		return fmt.Errorf("/opt has %v, %v", entries, err)
	}
	for _, args := range [][]string{{"verify"}, append([]string{"status", "--exit-code"}, names...)} {
		if _, all, code, err := m.clayer(args...); err != nil || code != 0 {
			return fmt.Errorf("%s: %v\n%s", args[0], err, all)
		}
	}
	return nil
}

// ofClayer are what the root has of clayer, and of the test.
var ofClayer = map[string]bool{"proc": true, "dev": true, "sys": true, "run": true, "tmp": true, "work": true, "var/lib/clayer": true,
	"root/.cache": true, "root/.local": true, "home/me/.cache": true, "home/me/.local": true}

var times = regexp.MustCompile(` \d+\.\d+`)

// tree describes the root, without times.
func (m *machine) tree() ([]string, error) {
	lines, err := treetest.Lines(m.root(), func(p string) bool { return ofClayer[p] })
	for i, l := range lines {
		lines[i] = times.ReplaceAllString(l, "")
	}
	return lines, err
}

func difference(want, got []string) string {
	var b strings.Builder
	for _, l := range want {
		if !slices.Contains(got, l) {
			fmt.Fprintf(&b, "\n- %s", l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			fmt.Fprintf(&b, "\n+ %s", l)
		}
	}
	return b.String()
}
