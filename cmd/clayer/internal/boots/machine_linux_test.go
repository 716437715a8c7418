package boots

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/hosttest"
)

const (
	plainUser = 424242          // who has no rights and no name on any machine
	limit     = 4 * time.Minute // a minute is what a store may ask to wait, and machines stall
	enough    = "size=64m,nr_inodes=20000"
)

// A ground is where a boot takes place: what its machines share, in one directory.
//
//	work/clayer    the program
//	work/project   the layers
//	work/store     the store, where that is a directory
//	NAME           the root of a machine, on a tmpfs
type ground struct {
	*player
	dir  string
	boot *Boot
}

// A machine is a root, and the network around it.
type machine struct {
	*ground
	name string
	host *hosttest.Host
}

func (p *player) makeTemplate() error {
	if err := clitest.MakeRoot(p.template); err != nil {
		return err
	}
	for _, dir := range []string{"work", "home/me", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(p.template, dir), 0o755); err != nil {
			return err
		}
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "random": 8, "urandom": 9} {
		path := filepath.Join(p.template, "dev", name)
		if err := errors.Join(unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))), os.Chmod(path, 0o666)); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(p.template, "tmp"), 0o1777)
}

func (g *ground) path(names ...string) string {
	return filepath.Join(append([]string{g.dir}, names...)...)
}

func (p *player) ground(b *Boot) (*ground, error) {
	dir, err := os.MkdirTemp(p.dir, "boot")
	g := &ground{p, dir, b}
	if err != nil {
		return g, err
	}
	for _, d := range []string{"work/bin", "work/store", "work/project"} {
		if err := os.MkdirAll(g.path(d), 0o777); err != nil {
			return g, err
		}
	}
	return g, errors.Join(os.Chmod(dir, 0o755), os.Chmod(g.path("work/store"), 0o777), os.Link(p.exe, g.path("work/bin/clayer")), os.Link(p.script, g.path("work/boot.sh")))
}

// remove removes the machines, and what they shared.
func (g *ground) remove() {
	entries, _ := os.ReadDir(g.dir)
	for _, e := range entries {
		if e.Name() != "work" {
			_ = unix.Unmount(g.path(e.Name()), unix.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(g.dir); err != nil {
		g.t.Error(err)
	}
}

// write writes the project in a version.
func (g *ground) write(v version) error {
	names := make([]string, 0, len(g.boot.Layers))
	for _, l := range g.boot.Layers {
		names = append(names, strconv.Quote(l.Name))
		text, files := g.boot.text(l, v)
		files[fileOf(l)] = text
		for name, text := range files {
			if err := os.WriteFile(g.path("work/project", name), []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(g.path("work/project/.claude"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(g.path("work/project/.claude/container-layers.json"), []byte(`{"layers": [`+strings.Join(names, ", ")+`]}`), 0o644)
}

// machine makes a fresh machine.
func (g *ground) machine(name, profile string, link hosttest.Link) (*machine, error) {
	m := &machine{ground: g, name: name}
	if err := os.Mkdir(m.root(), 0o755); err != nil {
		return m, err
	}
	if err := unix.Mount("boots", m.root(), "tmpfs", 0, "mode=755,"+enough); err != nil {
		return m, fmt.Errorf("mount a tmpfs: %w", err)
	}
	script := `cp -a "$1/." "$2"`
	if g.boot.Plain {
		script += fmt.Sprintf(` && chown -R %[1]d:%[1]d "$2"`, plainUser)
	}
	if text, err := exec.Command("sh", "-c", script, "sh", g.template, m.root()).CombinedOutput(); err != nil {
		return m, fmt.Errorf("%w: %s", err, text)
	}
	return m, m.move(profile, link)
}

func (m *machine) root() string { return m.path(m.name) }

// move gives the machine the network of another host.
func (m *machine) move(profile string, link hosttest.Link) error {
	i := slices.IndexFunc(hosttest.Profiles, func(p hosttest.Profile) bool { return p.Name == profile })
	m.host = m.player.hostOf(&hosttest.Profiles[i], link)
	m.host.Before(nil)
	data, err := os.ReadFile(m.certificates())
	if err != nil {
		return err
	}
	return os.WriteFile(m.path("work", m.name+".pem"), data, 0o644)
}

// certificates is the file with those of the host's proxy, outside of the root.
func (m *machine) certificates() string {
	for _, v := range m.host.Environ() {
		if file, ok := strings.CutPrefix(v, "SSL_CERT_FILE="); ok {
			return file
		}
	}
	panic("no certificates")
}

// hostOf returns a network that no other machine uses.
func (p *player) hostOf(profile *hosttest.Profile, link hosttest.Link) *hosttest.Host {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.internet.Host(p.t, profile, link)
}

// resize sets how much space the disk has left; 0 is enough.
func (m *machine) resize(kib, inodes int) error {
	var st unix.Statfs_t
	if err := unix.Statfs(m.root(), &st); err != nil {
		return err
	}
	options := enough
	if kib > 0 {
		options = fmt.Sprintf("size=%d,nr_inodes=20000", int64(st.Blocks-st.Bfree)*st.Bsize+int64(kib)<<10)
	}
	if inodes > 0 {
		options = fmt.Sprintf("size=64m,nr_inodes=%d", int64(st.Files-st.Ffree)+int64(inodes))
	}
	return unix.Mount("", m.root(), "", unix.MS_REMOUNT, options)
}

// command returns a command in the root. env is added to that of a session.
func (m *machine) command(env []string, argv ...string) *exec.Cmd {
	user := ""
	home := "/root"
	if m.boot.Plain {
		user, home = fmt.Sprintf("%d:%d", plainUser, plainUser), "/home/me"
	}
	cmd := clitest.Confined(m.root(), m.path("work"), user, argv...)
	for _, v := range m.host.Environ() {
		cmd.Env = append(cmd.Env, strings.ReplaceAll(v, m.certificates(), "/work/"+m.name+".pem"))
	}
	cmd.Env = append(cmd.Env, "PATH=/work/bin:/usr/sbin:/usr/bin:/bin", "HOME="+home, "TMPDIR=/tmp", "TERM=dumb", "CLAYER_YES=1", "CLAYER_PROJECT=me/"+filepath.Base(m.dir), "CLAYER_SALT="+filepath.Base(m.dir),
		"AWS_ACCESS_KEY_ID=AKIDOFATEST", "AWS_SECRET_ACCESS_KEY=secret-key-of-a-test", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true")
	if flag := m.storeFlag(); flag != "" {
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		cmd.Env = append(cmd.Env, "CLAYER_"+strings.ToUpper(name)+"="+value)
	}
	if m.boot.InPlace {
		cmd.Env = append(cmd.Env, "CLAYER_SANDBOX=inplace")
	}
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// clayer runs clayer in the project, and returns what it prints on stdout, and all.
func (m *machine) clayer(args ...string) (stdout, all string, code int, err error) {
	cmd := m.command(nil, append([]string{"/bin/sh", "-c", `cd /work/project && exec clayer "$@" 2>/tmp/.stderr`, "sh"}, args...)...)
	stdout, err = clitest.Output(cmd, limit, syscall.SIGQUIT)
	text, _ := os.ReadFile(filepath.Join(m.root(), "tmp/.stderr"))
	_ = os.Remove(filepath.Join(m.root(), "tmp/.stderr"))
	code = cmd.ProcessState.ExitCode()
	all = fmt.Sprintf("$ clayer %s   # on %s, exit code %d\n%s%s", strings.Join(args, " "), m.name, code, stdout, text)
	if code < 0 || code == 2 && strings.Contains(string(text), "goroutine ") {
		return stdout, all, code, fmt.Errorf("clayer %s: it hangs or panics: %w\n%s", args[0], err, text)
	}
	return stdout, all, code, nil
}

// kill ends by SIGKILL what a boot has started, and reports whether there was anything.
func kill(script int, whom string) bool {
	parent, name := processes()
	isBelow := func(pid, of int) bool {
		for ; pid > 1; pid = parent[pid] {
			if parent[pid] == of {
				return true
			}
		}
		return false
	}
	killed := false
	for pid := range parent {
		is := isBelow(pid, script)
		if whom == "script" {
			is = is || pid == script
		} else if is {
			of := pid // the outermost clayer above it
			for p := pid; p > 1 && p != script; p = parent[p] {
				if name[p] == "clayer" {
					of = p
				}
			}
			isClayer := name[of] == "clayer"
			is = isClayer && (whom == "clayer") == (of == pid)
		}
		if is && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed = true
		}
	}
	return killed
}

// processes returns the parents and the names of all processes.
func processes() (parent map[int]int, name map[int]string) {
	parent, name = make(map[int]int), make(map[int]string)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		before, after, _ := strings.Cut(string(data), " (")
		end := strings.LastIndexByte(after, ')')
		pid, _ := strconv.Atoi(before)
		fields := strings.Fields(after[end+1:])
		parent[pid], _ = strconv.Atoi(fields[1])
		name[pid] = after[:end]
	}
	return parent, name
}
