//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/clayer/clayer/cmd/clayer/internal/ptytest"
	"github.com/clayer/clayer/internal/buildflags"
	"github.com/clayer/clayer/internal/testexec"
)

// shims installs shims before fake programs, by name their scripts, and returns
// the directory that they are in, their environment, and their Containerfile.
func shims(t testing.TB, fakes map[string]string) (dir, file string, env []string) {
	t.Helper()
	work := t.TempDir()
	fake, home := filepath.Join(work, "fake"), filepath.Join(work, "home")
	for _, d := range []string{fake, home} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range fakes {
		if err := testexec.WriteFile(filepath.Join(fake, name), []byte("#!/bin/sh\n"+script)); err != nil {
			t.Fatal(err)
		}
	}
	// A link, so that the shims find the test binary as clayer.
	exe := clayerProgram(t)
	bin := filepath.Join(work, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(bin, "clayer")); err != nil {
		t.Fatal(err)
	}
	dir, file = filepath.Join(work, "shims"), filepath.Join(work, "Containerfile")
	env = []string{"HOME=" + home, "PATH=" + fake + ":" + bin + ":/usr/bin:/bin", "TERM=xterm", "TMPDIR=" + work, "CLAYER_SHIM=lines"}
	cmd := exec.Command(filepath.Join(bin, "clayer"), "shim", "install", "--dir", dir, "-f", file)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	env[1] = "PATH=" + dir + ":" + env[1][len("PATH="):]
	return dir, file, env
}

func TestTwentyShimsAtOnce(t *testing.T) {
	t.Parallel()
	dir, file, env := shims(t, map[string]string{"pip": "exit 0\n", "npm": "exit 0\n"})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			args := []string{"install", fmt.Sprint("package", i)}
			program := "pip"
			if i%2 == 1 {
				program, args = "npm", append(args, "-g")
			}
			cmd := exec.Command(filepath.Join(dir, program), args...)
			cmd.Env = env
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(data))
	for i := range 20 {
		name := fmt.Sprint("package", i)
		words = slices.DeleteFunc(words, func(w string) bool { return w == name })
		if n := len(strings.Fields(string(data))) - len(words); n != i+1 {
			t.Fatalf("%s is not there once:\n%s", name, data)
		}
	}
}

// tool asks, and draws a bar, on a terminal alone; it prints its size, and of Ctrl-C.
const tool = `
trap 'echo; echo "stopped: $(stty size)"; exit 5' INT
[ -t 0 ] && [ -t 1 ] && [ -t 2 ] || { echo no terminal; exit 1; }
stty size
printf 'Proceed? [y/N] '
read answer
[ "$answer" = y ] || exit 1
for i in 1 2 3; do printf '\r[%s] \033[32m%s0%%\033[0m' "$i" "$i"; done
echo
if [ "$2" = wait ]; then echo waiting; while :; do sleep 0.1; done; fi
exit 0
`

// onTerminal runs a program on a terminal of 40 by 100, types, and returns what
// the terminal showed.
func onTerminal(t *testing.T, env []string, program string, args []string, talk func(tty *os.File, shown func(text string) bool)) (string, *os.ProcessState) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = env
	tty, err := ptytest.Start(cmd, &pty.Winsize{Rows: 40, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	var mu sync.Mutex
	var out bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b) // EOF when the program ends
			mu.Lock()
			out.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	talk(tty.File, func(text string) bool {
		for range 12_000 { // two minutes: it is a bug, not a slow machine
			mu.Lock()
			found := strings.Contains(out.String(), text)
			mu.Unlock()
			if found {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%q is not shown, but %q", text, out.String())
		_ = cmd.Process.Kill() // and the terminal hangs up
		return false
	})
	_ = cmd.Wait()
	<-done
	return out.String(), cmd.ProcessState
}

func TestOnATerminalAShimIsNotSeen(t *testing.T) {
	t.Parallel()
	dir, file, env := shims(t, map[string]string{"npm": tool})
	real := filepath.Join(filepath.Dir(dir), "fake", "npm")
	yes := func(tty *os.File, shown func(string) bool) {
		if shown("[y/N] ") {
			_, _ = io.WriteString(tty, "y\n")
		}
	}
	args := []string{"install", "-g", "left-pad"}
	plain, _ := onTerminal(t, env, real, args, yes)
	shimmed, state := onTerminal(t, append(env, "CLAYER_SHIM=lines,quiet"), filepath.Join(dir, "npm"), args, yes)
	if plain != shimmed || !strings.Contains(plain, "40 100") || !strings.Contains(plain, "\x1b[32m30%") {
		t.Errorf("with a shim %q, without %q", shimmed, plain)
	}
	if !state.Success() {
		t.Errorf("%v", state)
	}
	if data, _ := os.ReadFile(file); string(data) != "RUN npm install -g left-pad\n" {
		t.Errorf("captured %q", data)
	}
}

func TestCtrlCReachesTheProgramOnce(t *testing.T) {
	t.Parallel()
	dir, file, env := shims(t, map[string]string{"npm": tool})
	shown, state := onTerminal(t, env, filepath.Join(dir, "npm"), []string{"install", "wait", "-g"}, func(tty *os.File, shown func(string) bool) {
		if shown("[y/N] ") {
			_, _ = io.WriteString(tty, "y\n")
		}
		if shown("waiting") {
			_, _ = io.WriteString(tty, "\x03")
		}
	})
	if n := strings.Count(shown, "stopped: 40 100"); n != 1 || state.ExitCode() != 5 {
		t.Errorf("%d times, %v: %q", n, state, shown)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("an install that was stopped is captured")
	}
}

func TestSignalsReachTheProgram(t *testing.T) {
	t.Parallel()
	const waits = `
trap 'echo got TERM; exit 9' TERM
trap 'echo got INT; exit 8' INT
trap 'echo got HUP; exit 7' HUP
[ "$2" = die ] && kill -KILL $$
echo ready; while :; do sleep 0.05; done
`
	dir, _, env := shims(t, map[string]string{"pip": waits})
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 9, syscall.SIGINT: 8, syscall.SIGHUP: 7} {
		cmd := exec.Command(filepath.Join(dir, "pip"), "install", "x")
		cmd.Env = env
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ready := make([]byte, len("ready\n"))
		if _, err := io.ReadFull(out, ready); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out)
		_ = cmd.Wait()
		if cmd.ProcessState.ExitCode() != code || !strings.HasPrefix(string(rest), "got ") {
			t.Errorf("%v: %v, %q", sig, cmd.ProcessState, rest)
		}
	}
	// One that is ended by a signal ends the shim by it too.
	cmd := exec.Command(filepath.Join(dir, "pip"), "install", "die")
	cmd.Env = env
	_ = cmd.Run()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("%v", cmd.ProcessState)
	}
}

// BenchmarkShim measures what a shim adds to a command line that installs nothing,
// to an install that is captured already, and to one that is written: in turns
// with the program alone, since whatever else a machine does slows down both, the
// least and the median of each. The binary is one of release, since the test's own
// takes longer to start.
func BenchmarkShim(b *testing.B) {
	dir, file, env := shims(b, map[string]string{"pip": "exit 0\n"})
	real := filepath.Join(filepath.Dir(dir), "fake", "pip")
	clayer := filepath.Join(filepath.Dir(dir), "bin", "clayer")
	if err := os.Remove(clayer); err != nil {
		b.Fatal(err)
	}
	build := exec.Command("go", slices.Concat([]string{"build"}, buildflags.List(), []string{"-o", clayer, "."})...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(file, []byte("RUN pip install x\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	for _, bb := range []struct {
		name, program string
		args          []string
	}{
		{"list", filepath.Join(dir, "pip"), []string{"list"}},
		{"dry-run", filepath.Join(dir, "pip"), []string{"install", "--dry-run", "x"}},
		{"captured", filepath.Join(dir, "pip"), []string{"install", "x"}},
		{"written", filepath.Join(dir, "pip"), nil},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var alone, shimmed []float64
			run := func(program string, args []string, took *[]float64) {
				cmd := exec.Command(program, args...)
				cmd.Env = env
				start := time.Now()
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
				*took = append(*took, float64(time.Since(start).Microseconds())/1000)
			}
			for i := 0; b.Loop(); i++ {
				args := bb.args
				if args == nil {
					args = []string{"install", "-U", fmt.Sprintf("x%d", i)}
					if i%50 == 0 { // a Containerfile as people have them
						if err := os.WriteFile(file, []byte("RUN pip install x\n"), 0o644); err != nil {
							b.Fatal(err)
						}
					}
				}
				run(real, args, &alone)
				run(bb.program, args, &shimmed)
			}
			slices.Sort(alone)
			slices.Sort(shimmed)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(alone[0], "alone-min-ms")
			b.ReportMetric(shimmed[0]-alone[0], "adds-min-ms")
			b.ReportMetric(alone[len(alone)/2], "alone-p50-ms")
			b.ReportMetric(shimmed[len(shimmed)/2]-alone[len(alone)/2], "adds-p50-ms")
		})
	}
}
