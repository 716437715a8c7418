package storm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A result is what became of a command.
type result struct {
	code   int    // -1: killed by a signal
	output string // of both streams
	hit    string // the call at which the fault happened; "" if it did not
	calls  int
	took   time.Duration
}

func (r result) ok() bool { return r.code == 0 }

// patience bounds what does not end by itself. It is no measure of speed.
const patience = 3 * time.Minute

// A command is clayer while it runs.
type command struct {
	p      *play
	a      Action
	fault  *armed
	cmd    *exec.Cmd
	output *os.File
	start  time.Time
	ended  chan error // of who supervises it
	hung   *time.Timer
}

// command runs clayer from start to end.
func (p *play) command(a Action, fault *armed) result {
	p.t.Helper()
	res := p.start(a, fault).wait()
	p.nothingRuns(a.String())
	return res
}

// start starts clayer, under a filter that reports its calls.
func (p *play) start(a Action, fault *armed) *command {
	p.t.Helper()
	if fault == nil {
		fault = &armed{g: p.ground}
	}
	c := &command{p: p, a: a, fault: fault, ended: make(chan error, 1)}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	defer theirs.Close()
	// Not a pipe: who is left behind would keep it open.
	if c.output, err = os.CreateTemp(p.path(), "output-"); err != nil {
		p.t.Fatal(err)
	}
	os.Remove(c.output.Name())
	user := ""
	if p.mode.User {
		user = fmt.Sprint(plainUser)
	}
	c.cmd = exec.Command("/proc/self/exe", append([]string{user, p.exe}, p.args(a)...)...)
	c.cmd.Args[0] = launcher
	c.cmd.Dir, c.cmd.Env = p.path(fmt.Sprint("ctx", a.Recipe)), p.environ()
	c.cmd.Stdout, c.cmd.Stderr = c.output, c.output
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.start = time.Now()
	if err := c.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	fault.pid = c.cmd.Process.Pid
	theirs.Close()
	listener, err := receive(fds[0])
	unix.Close(fds[0])
	if err != nil {
		c.ended <- err
	} else {
		go func() {
			err := supervise(listener, p.exe, fault.before)
			unix.Close(listener)
			c.ended <- err
		}()
	}
	c.hung = time.AfterFunc(patience, func() {
		p.t.Errorf("%s: it does not end", a)
		syscall.Kill(fault.pid, syscall.SIGQUIT) // it says where it is
		time.AfterFunc(10*time.Second, func() { syscall.Kill(fault.pid, syscall.SIGKILL) })
	})
	return c
}

// wait waits for the end of clayer and all that it started.
func (c *command) wait() result {
	p := c.p
	p.t.Helper()
	err := c.cmd.Wait()
	c.hung.Stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	res := result{code: c.cmd.ProcessState.ExitCode(), took: time.Since(c.start)}
	select {
	case err := <-c.ended:
		if err != nil && !p.killed {
			p.t.Errorf("%s: %v", c.a, err)
		}
	case <-time.After(30 * time.Second):
		p.t.Errorf("%s: processes are left: %q", c.a, survivors())
		syscall.Kill(-1, syscall.SIGKILL)
		<-c.ended
	}
	if _, err := c.output.Seek(0, io.SeekStart); err != nil {
		p.t.Fatal(err)
	}
	text, err := io.ReadAll(c.output)
	if err != nil {
		p.t.Fatal(err)
	}
	c.output.Close()
	res.output, res.hit, res.calls = string(text), c.fault.hit, c.fault.calls
	if c.fault.err != nil {
		p.t.Errorf("%s: the fault could not be made: %v", c.a, c.fault.err)
	}
	if c.fault.Fault != nil && c.fault.hit != "" && c.fault.Whom == everything {
		p.killed = true
	}
	p.checkResult(c.a, c.fault, res)
	return res
}

func (p *play) environ() []string {
	return append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "NO_PROXY=*",
		"HOME=" + p.path("home"), "TMPDIR=" + p.path("tmp"), "CLAYER_CACHE_DIR=" + p.cache(),
	}, p.far.environ...)
}

// args is the command line.
func (p *play) args(a Action) []string {
	root := []string{"--root", p.tree()}
	if p.mode.Dest {
		root = []string{"--dest", p.tree()}
	}
	stores := slices.Clone(p.far.flags)
	if p.round.SmallCache {
		stores = append(stores, "--cache-size", "20KiB")
	}
	recipe := slices.Concat(stores, []string{"-f", "Containerfile", "--build-arg", "HOST=" + p.www.host()})
	switch a.Command {
	case "solve", "plan":
		return slices.Concat([]string{a.Command, "--sandbox", p.mode.Sandbox}, root, recipe)
	case "build":
		return slices.Concat([]string{"build", "Containerfile", "--sandbox", p.mode.Sandbox, "--build-arg", "HOST=" + p.www.host()}, root, stores)
	case "run":
		return slices.Concat([]string{"run"}, root, recipe, []string{"--", "sh", "-c", "echo changed > /etc/s/conf; rm -rf /opt/s; echo ran"})
	case "cache rm":
		return slices.Concat([]string{"cache", "rm", "base"}, stores)
	case "cache prune":
		return slices.Concat([]string{"cache", "prune", "--keep", "1"}, stores)
	case "cache push", "cache pull", "cache ls":
		return slices.Concat([]string{"cache", a.Command[6:]}, stores)
	}
	return append([]string{a.Command}, root...)
}

// lasting reports whether the fault outlives the call at which it happened.
func (f *Fault) lasting() bool {
	switch f.Kind {
	case callFails:
		return f.Lasts
	case noBytes, noInodes, readOnly:
		return true
	}
	return false
}
