package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"

	"github.com/clayer/clayer/cmd/clayer/internal/ptytest"
)

// A screen is a terminal in which a command runs: what a user sees of it.
type screen struct {
	t   *testing.T
	cmd *exec.Cmd
	tty *ptytest.Terminal

	mu   sync.Mutex
	emu  *vt.Emulator
	raw  strings.Builder
	done chan struct{}
}

func startScreen(t *testing.T, cmd *exec.Cmd, columns, rows uint16, environ ...string) *screen {
	t.Helper()
	// The session's own would decide what is shown.
	for _, kv := range cmd.Env {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "CI", "NO_COLOR", "TERM":
		default:
			environ = append(environ, kv)
		}
	}
	cmd.Env = environ
	tty, err := ptytest.Start(cmd, &pty.Winsize{Cols: columns, Rows: rows})
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, cmd: cmd, tty: tty, emu: vt.NewEmulator(int(columns), int(rows)), done: make(chan struct{})}
	go io.Copy(io.Discard, s.emu) // what a terminal answers
	go func() {
		defer close(s.done)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			s.mu.Lock()
			s.emu.Write(buf[:n])
			s.raw.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return // EOF: the command has ended
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		tty.Close()
	})
	return s
}

// text returns the screen, without blanks at the ends of its lines and without
// its empty lines.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for line := range strings.SplitSeq(s.emu.String(), "\n") {
		if line = strings.TrimRight(line, " \r"); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// waitFor waits until the screen shows what matches.
func (s *screen) waitFor(pattern string) string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if text := s.text(); re.MatchString(text) {
			return text
		}
	}
	s.t.Fatalf("the screen never showed %s:\n%s\n%q", pattern, s.text(), s.raw.String())
	return ""
}

// wait waits for the end of the command, and returns its status and the screen.
func (s *screen) wait() (code int, text string) {
	s.t.Helper()
	<-s.done
	s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode(), s.text()
}

// checkLeft fails where the terminal is not left as it was: at the beginning of
// a line, with a cursor, and without a mode of its own.
func (s *screen) checkLeft() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.emu.CursorHidden() || s.emu.IsAltScreen() || s.emu.CursorPosition().X != 0 {
		s.t.Errorf("the terminal is left with a cursor hidden=%v at %v, alternate screen=%v", s.emu.CursorHidden(), s.emu.CursorPosition(), s.emu.IsAltScreen())
	}
	if regexp.MustCompile(`\x1b\[[?>=]`).MatchString(s.raw.String()) {
		s.t.Errorf("a mode was set: %q", s.raw.String())
	}
}

const slowFile = `RUN echo one > /one
RUN printf '\033[31m数値計算\033[0m of many\n'; while ! test -e /tmp/../go; do sleep 0.05; done; echo two > /two
RUN echo three > /three
`

func terminalWorkspace(t *testing.T, file string) *workspace {
	w := newWorkspace(t)
	w.write("Containerfile", file)
	return w
}

// TestTerminal looks at a solve as a user does, at 80 columns and 24 rows.
func TestTerminal(t *testing.T) {
	t.Parallel()
	w := terminalWorkspace(t, strings.ReplaceAll(slowFile, "! test -e /tmp/../go", "test $((n+=1)) -lt 30"))
	s := startScreen(t, w.command("solve", "--root", "root"), 80, 24, "TERM=xterm-256color")
	text := s.waitFor(`(?m)^. base:2  RUN .*  数値計算 of many +\d+\.\ds$`)
	for _, want := range []string{`(?m)^✓ base:1  RUN echo one > /one +1 change, \d+ B  \d\.\ds$`, `(?m)^building · 1 of 3 steps · \d+\.\ds$`} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("not on the screen: %s\n%s", want, text)
		}
	}
	code, text := s.wait()
	if code != 0 || !regexp.MustCompile(`(?m)^clayer: 3 ran in `).MatchString(text) || strings.Contains(text, "building") || strings.Contains(text, "applying") {
		t.Errorf("exit %d:\n%s", code, text)
	}
	s.checkLeft()

	// All is there: a line.
	s = startScreen(t, w.command("solve", "--root", "root"), 80, 24, "TERM=xterm-256color")
	if code, text := s.wait(); code != 0 || !regexp.MustCompile(`^clayer: 3 present in 0\.\ds$`).MatchString(text) {
		t.Errorf("exit %d:\n%s", code, text)
	}

	// All is cached: ten lines at most.
	if _, stderr, code := w.run("undo", "--root", "root"); code != 0 {
		t.Fatal(stderr)
	}
	s = startScreen(t, w.command("solve", "--root", "root"), 80, 24, "TERM=xterm-256color")
	if code, text := s.wait(); code != 0 || strings.Count(text, "\n") >= 10 || !strings.Contains(text, "3 restored") {
		t.Errorf("exit %d:\n%s", code, text)
	}
	s.checkLeft()
}

// TestTerminalChangesSize: a narrower, then a wider terminal shows each step once.
func TestTerminalChangesSize(t *testing.T) {
	t.Parallel()
	w := terminalWorkspace(t, strings.ReplaceAll(slowFile, "! test -e /tmp/../go", "test $((n+=1)) -lt 40"))
	s := startScreen(t, w.command("solve", "--root", "root"), 200, 24, "TERM=xterm-256color")
	s.waitFor(`  数値計算 of many +\d`)
	s.mu.Lock()
	s.emu.Resize(40, 24)
	s.mu.Unlock()
	pty.Setsize(s.tty.File, &pty.Winsize{Cols: 40, Rows: 24})
	s.waitFor(`(?m)^. base:2  RUN printf '.*… +\d+\.\ds$`)
	s.mu.Lock()
	s.emu.Resize(120, 24)
	s.mu.Unlock()
	pty.Setsize(s.tty.File, &pty.Winsize{Cols: 120, Rows: 24})
	code, text := s.wait()
	if code != 0 || strings.Count(text, "✓ base:3") != 1 {
		t.Errorf("exit %d:\n%s", code, text)
	}
	s.checkLeft()
}

// TestTerminalAfterwards: a solve that fails, is interrupted, or is killed
// leaves a terminal that can be used.
func TestTerminalAfterwards(t *testing.T) {
	t.Parallel()
	w := terminalWorkspace(t, "RUN echo complaint; exit 7\n")
	s := startScreen(t, w.command("solve", "--root", "root"), 80, 24, "TERM=xterm-256color")
	if code, text := s.wait(); code != 1 || !strings.Contains(text, "✗ base:1  RUN echo complaint; exit 7") || !strings.Contains(text, "\n      complaint") {
		t.Errorf("exit %d:\n%s", code, text)
	}
	s.checkLeft()

	w.write("Containerfile", "RUN echo begun; sleep 60\n")
	s = startScreen(t, w.command("solve", "--root", "root"), 80, 24, "TERM=xterm-256color")
	s.waitFor("begun  ")
	s.tty.WriteString("\x03") // Ctrl-C
	if code, text := s.wait(); code != 130 || !strings.HasSuffix(text, "clayer: interrupted") || strings.Contains(text, "building") {
		t.Errorf("exit %d:\n%s", code, text)
	}
	s.checkLeft()

	s = startScreen(t, w.command("solve", "--root", "root"), 80, 24, "TERM=xterm-256color")
	s.waitFor("begun  ")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(children), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.wait()
	s.checkLeft()
}

// TestNoLiveDisplay: where nobody looks, or the terminal can't, lines are written.
func TestNoLiveDisplay(t *testing.T) {
	t.Parallel()
	for i, environ := range [][]string{{"TERM=dumb"}, {"TERM=xterm", "CI=true"}, {"TERM="}} {
		w := terminalWorkspace(t, fmt.Sprintf("RUN echo %d > /x\n", i))
		s := startScreen(t, w.command("solve", "--root", "root"), 80, 24, environ...)
		code, text := s.wait()
		if code != 0 || strings.Contains(s.raw.String(), "\x1b") || !strings.Contains(text, "base:1  done in") {
			t.Errorf("%v: exit %d:\n%q", environ, code, s.raw.String())
		}
	}
	w := terminalWorkspace(t, "RUN echo x > /x\n")
	s := startScreen(t, w.command("solve", "--root", "root"), 80, 24, "TERM=xterm", "NO_COLOR=1")
	code, text := s.wait()
	if code != 0 || !strings.Contains(text, "✓ base:1") || regexp.MustCompile(`\x1b\[[0-9;]*m`).MatchString(s.raw.String()) {
		t.Errorf("NO_COLOR: exit %d:\n%q", code, s.raw.String())
	}
}

// TestLinesFitTheTerminal: reports fold their lines between words on a terminal.
func TestLinesFitTheTerminal(t *testing.T) {
	t.Parallel()
	w := terminalWorkspace(t, "RUN echo a sentence that is a good deal longer than the line of a terminal has columns > /x\n")
	if _, stderr, code := w.run("solve", "--root", "root", "--name", "a-layer-with-a-long-name"); code != 0 {
		t.Fatal(stderr)
	}
	for _, args := range [][]string{
		{"doctor", "--root", "root", "--offline"}, {"doctor", "--stores"}, {"cache", "ls"}, {"status", "--root", "root"}, {"inspect", "--root", "root", "Containerfile"},
		{"status", "--root", "root", "--exit-code"}, {"config", "ls"}, {"shim", "install", "--dir", "shims"},
	} {
		s := startScreen(t, w.command(args...), 80, 200, "TERM=xterm-256color")
		s.wait()
		s.mu.Lock()
		raw := s.raw.String()
		s.mu.Unlock()
		if raw == "" {
			t.Errorf("%v prints nothing", args)
		}
		for line := range strings.SplitSeq(raw, "\n") {
			line = strings.TrimRight(line, "\r ")
			isLong := func(word string) bool { return len(word) > 50 } // a path, which stays in one piece
			if n := len([]rune(line)); n > 80 && !slices.ContainsFunc(strings.Fields(line), isLong) {
				t.Errorf("%v: %d columns: %q", args, n, line)
			}
		}
	}
}

// TestShellHasTheTerminal: a shell has job control, Ctrl-C is its own, and the
// terminal comes back, also from a program that leaves it raw.
func TestShellHasTheTerminal(t *testing.T) {
	t.Parallel()
	w := terminalWorkspace(t, "RUN echo one > /one\n")
	s := startScreen(t, w.command("shell", "--root", "root"), 80, 24, "TERM=xterm-256color", "SHELL=/bin/sh", "PS1=ready> ")
	s.waitFor(`ready>`)
	// Who says that it is there is in the foreground: a Ctrl-C between two commands is
	// nobody's, in any shell.
	s.tty.WriteString("cat /one; /bin/busybox sh -c 'echo asleep; exec /bin/busybox sleep 100'\n")
	s.waitFor(`(?m)^one\nasleep$`)
	s.tty.WriteString("\x03")
	s.waitFor(`(?s)ready>.*ready>$`)
	s.tty.WriteString("stty raw; kill -9 $$\n")
	code, text := s.wait()
	if code != 128+9 || strings.Contains(text, "building") || strings.Contains(text, "interrupted") {
		t.Errorf("exit %d:\n%s", code, text)
	}
}

// BenchmarkRun is how long a command takes to start when all is in the root.
func BenchmarkRun(b *testing.B) {
	w := newWorkspace(b)
	w.write("Containerfile", "RUN echo one > /one\n")
	if _, stderr, code := w.run("solve", "--root", "root"); code != 0 {
		b.Fatal(stderr)
	}
	for b.Loop() {
		if _, stderr, code := w.run("run", "--root", "root", "--", "true"); code != 0 {
			b.Fatal(stderr)
		}
	}
}
