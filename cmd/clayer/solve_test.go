//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/testexec"
)

// workspace is a directory with a root, a cache and Containerfiles.
type workspace struct {
	t   testing.TB
	dir string
}

func newWorkspace(t testing.TB) *workspace {
	t.Helper()
	clitest.RequireSandbox(t)
	w := &workspace{t, t.TempDir()}
	if err := clitest.MakeRoot(w.path("root")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *workspace) path(name string) string { return filepath.Join(w.dir, name) }

func (w *workspace) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workspace) command(args ...string) *exec.Cmd {
	cmd := clayerCommand(w.t, args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "CLAYER_CACHE_DIR="+w.path("cache"), "HOME="+w.dir)
	return cmd
}

// run runs clayer and returns what it printed, and its exit code.
func (w *workspace) run(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	cmd := w.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// waitFor reads lines until one holds text.
func waitFor(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	var seen strings.Builder
	for {
		line, err := r.ReadString('\n')
		seen.WriteString(line)
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			t.Fatalf("no %q in:\n%s", text, seen.String())
		}
	}
}

// Six downloads that are answered only when all six were asked for: they are
// asked for at the same time, and each of them once, by plan as by solve.
func TestFetchesAtTheSameTimeAndOnce(t *testing.T) {
	t.Parallel()
	const n = 6
	for _, command := range []string{"plan", "solve"} {
		t.Run(command, func(t *testing.T) {
			w := newWorkspace(t)
			var mu sync.Mutex
			asked := make(map[string]int)
			all := make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked[r.URL.Path]++
				if len(asked) == n && asked[r.URL.Path] == 1 {
					close(all)
				}
				mu.Unlock()
				select {
				case <-all:
					io.WriteString(rw, "content of "+r.URL.Path)
				case <-time.After(30 * time.Second):
					rw.WriteHeader(http.StatusForbidden)
				}
			}))
			defer srv.Close()
			for l, name := range []string{"Containerfile", "Containerfile.x"} {
				var text strings.Builder
				for i := range n / 2 {
					fmt.Fprintf(&text, "FETCH %s/f%d-%d /opt/f\n", srv.URL, l, i)
				}
				w.write(name, text.String())
			}
			_, stderr, code := w.run(command, "--root=root", "-f", "Containerfile", "-f", "Containerfile.x")
			if code != 0 {
				t.Fatalf("exit code %d\n%s", code, stderr)
			}
			if len(asked) != n {
				t.Errorf("asked for %d of %d", len(asked), n)
			}
			for path, times := range asked {
				if times != 1 {
					t.Errorf("%s was asked for %d times", path, times)
				}
			}
		})
	}
}

// longRun is a third RUN that reports when it began and then does not end. The
// number of seconds names its process.
const longRun = "RUN echo one > /one\nRUN echo two > /two\nRUN echo half > /half; echo begun; (setsid sleep %[1]d &); sleep %[1]d\n"

// sleepers returns the processes whose command line has "sleep seconds".
func sleepers(t *testing.T, seconds int) (pids []string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("sleep\x00%d\x00", seconds)
	for _, p := range procs {
		if data, err := os.ReadFile(p); err == nil && strings.HasSuffix(string(data), want) {
			pids = append(pids, filepath.Base(filepath.Dir(p)))
		}
	}
	return pids
}

func TestStoppedInTheThirdRun(t *testing.T) {
	t.Parallel()
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			w := newWorkspace(t)
			seconds := 90_000_000 + os.Getpid()%100_000*10 + i
			w.write("Containerfile", fmt.Sprintf(longRun, seconds))
			cmd := w.command("solve", "--root=root", "-f", "Containerfile")
			pipe, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			stderr := bufio.NewReader(pipe)
			waitFor(t, stderr, "| begun")
			// The second step is stored while the third runs.
			deadline := time.Now().Add(60 * time.Second)
			for {
				stored, _ := filepath.Glob(w.path("cache/store/keys/*/*.json"))
				if len(stored) == 3 { // the second step has two keys
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("stored: %v", stored)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, stderr)
			err = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); sig != syscall.SIGKILL && code != 130 {
				t.Errorf("exit code %d, %v, want 130", code, err)
			}
			// The kernel ends the RUN's processes; it may take a moment.
			deadline = time.Now().Add(20 * time.Second)
			for len(sleepers(t, seconds)) > 0 {
				if time.Now().After(deadline) {
					t.Fatalf("the RUN's processes outlive it: %v", sleepers(t, seconds))
				}
				time.Sleep(20 * time.Millisecond)
			}
			for _, name := range []string{"root/one", "root/half"} {
				if _, err := os.Stat(w.path(name)); err == nil {
					t.Errorf("%s is there", name)
				}
			}

			// The next solve begins with the third RUN.
			stdout, _, _ := w.run("plan", "--root=root", "-f", "Containerfile")
			if !strings.Contains(stdout, "1 to run, 2 cached") {
				t.Errorf("plan:\n%s", stdout)
			}
			w.write("Containerfile", strings.Replace(fmt.Sprintf(longRun, seconds), "; (setsid", " #", 1))
			_, errs, code := w.run("solve", "--root=root", "-f", "Containerfile")
			if code != 0 || !strings.Contains(errs, "1 ran, 2 restored") {
				t.Errorf("the next solve: exit code %d\n%s", code, errs)
			}
			if left, _ := os.ReadDir(w.path("root/var/lib/clayer/work")); len(left) > 0 {
				t.Errorf("left in the work folder: %v", left)
			}
		})
	}
}

// One solve per root: a second one waits, and says for whom.
func TestSecondSolveWaits(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	w.write("Containerfile", "RUN --mount=type=cache,target=/gate echo begun; until [ -e /gate/open ]; do sleep 0.05; done; echo x > /x\n")
	first := w.command("solve", "--root=root", "-f", "Containerfile")
	pipe1, _ := first.StderrPipe()
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	err1 := bufio.NewReader(pipe1)
	waitFor(t, err1, "| begun")

	_, stderr, code := w.run("solve", "--root=root", "-f", "Containerfile", "--no-wait")
	if code != 4 || !strings.Contains(stderr, fmt.Sprintf("process %d", first.Process.Pid)) {
		t.Errorf("--no-wait: exit code %d\n%s", code, stderr)
	}
	if stdout, _, code := w.run("plan", "--root=root", "-f", "Containerfile"); code != 0 || !strings.Contains(stdout, "1 to run") {
		t.Errorf("plan waits or fails: exit code %d\n%s", code, stdout)
	}

	second := w.command("solve", "--root=root", "-f", "Containerfile")
	pipe2, _ := second.StderrPipe()
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	err2 := bufio.NewReader(pipe2)
	waitFor(t, err2, fmt.Sprintf("waiting for process %d", first.Process.Pid))
	// A view of a root that changes would give wrong snapshots.
	looks := w.command("run", "--root=root", "-f", "Containerfile", "--", "cat", "/x")
	pipe3, _ := looks.StderrPipe()
	if err := looks.Start(); err != nil {
		t.Fatal(err)
	}
	err3 := bufio.NewReader(pipe3)
	waitFor(t, err3, fmt.Sprintf("waiting for process %d", first.Process.Pid))
	gates, _ := filepath.Glob(w.path("cache/mounts/*"))
	gates = slices.DeleteFunc(gates, func(name string) bool { return filepath.Ext(name) != "" }) // what is known of a mount
	if len(gates) != 1 {
		t.Fatalf("cache mounts: %v", gates)
	}
	if err := os.WriteFile(filepath.Join(gates[0], "open"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	rest1, _ := io.ReadAll(err1)
	rest2, _ := io.ReadAll(err2)
	rest3, _ := io.ReadAll(err3)
	if err := looks.Wait(); err != nil {
		t.Errorf("run: %v\n%s", err, rest3)
	}
	if err := first.Wait(); err != nil || !strings.Contains(string(rest1), "1 ran") {
		t.Errorf("the first: %v\n%s", err, rest1)
	}
	if err := second.Wait(); err != nil || !strings.Contains(string(rest2), "1 present") {
		t.Errorf("the second: %v\n%s", err, rest2)
	}
}

// A RUN begins with no signal blocked or ignored, whatever clayer was started with.
func TestRunStartsWithDefaultSignals(t *testing.T) {
	const cLibrary = 34 // the first that the C library leaves to programs, and Go does not handle
	w := newWorkspace(t)
	const kills = `for s in USR1 TERM HUP INT 34; do if sh -c "kill -$s \$\$; true"; then echo $s did nothing; exit 1; fi; done`
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var mask, before unix.Sigset_t
	for _, sig := range []syscall.Signal{unix.SIGUSR1, unix.SIGTERM, cLibrary} {
		mask.Val[(sig-1)/64] |= 1 << ((sig - 1) % 64)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &mask, &before); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) }()
	for _, kind := range []string{"overlay", "inplace"} {
		w.write("Containerfile", "RUN "+kills+" # "+kind+"\n")
		// This thread forks the program, which ignores what trap '' ignores.
		cmd := w.command("solve", "--root=root", "--sandbox="+kind)
		cmd.Args = append([]string{"sh", "-c", `trap '' HUP INT 34; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", kind, err, out)
		}
	}
}

// Without any privilege: as nobody, in a user namespace, into a directory.
func TestDestAsNobody(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root: can't become nobody; the scripts run as this user already")
	}
	const nobody = 65534
	// Directories of tests are closed to others; so is that of the test binary.
	exe := clayerProgram(t)
	dir, err := os.MkdirTemp("", "clayer-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := testexec.WriteFile(filepath.Join(dir, "clayer"), program); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"Containerfile": "WORKDIR /opt/clayer-test\nRUN echo made > made; id -u > id\nENV A=1\nCOPY Containerfile copied\nRUN cat made copied > both && rm made\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	// Settings that this user may not read are another one's: su and setpriv leave $HOME.
	config := filepath.Join(dir, "root's")
	if err := os.MkdirAll(filepath.Join(config, "clayer"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "clayer", "clayer.toml"), []byte("offline = 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(config, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "clayer"), args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "XDG_CONFIG_HOME=" + config}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "sandbox not available") {
			t.Skipf("no user namespaces here: %s", out)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if out := run("solve", "--dest=out"); !strings.Contains(out, "4 ran") {
		t.Errorf("the first: %s", out)
	}
	if out := run("solve", "--dest=out2"); !strings.Contains(out, "4 restored") {
		t.Errorf("the second: %s", out)
	}
	for _, out := range []string{"out", "out2"} {
		both, err := os.ReadFile(filepath.Join(dir, out, "opt/clayer-test/both"))
		if err != nil || string(both) != "made\n"+files["Containerfile"] {
			t.Errorf("%s: %q, %v", out, both, err)
		}
		if _, err := os.Stat(filepath.Join(dir, out, "opt/clayer-test/made")); err == nil {
			t.Errorf("%s: what was deleted is there", out)
		}
	}
	// What a killed RUN leaves: a directory that its owner may not enter.
	work := filepath.Join(dir, "out/var/lib/clayer/work")
	closed := filepath.Join(work, "view-1/upper/closed")
	if err := os.MkdirAll(filepath.Join(closed, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Join(closed, "in"); d != filepath.Dir(work); d = filepath.Dir(d) {
		if err := os.Chown(d, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	run("undo", "--dest=out")
	if _, err := os.Stat(work); err == nil {
		t.Errorf("%s is left", work)
	}
	if _, err := os.Stat("/opt/clayer-test"); err == nil {
		t.Error("the machine was changed")
	}
}
