package ui

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"

	"github.com/clayer/clayer/cmd/clayer/internal/ptytest"
	"github.com/clayer/clayer/solver/report"
)

// panicking names the variable that makes this test program one that panics
// while the live display is drawn.
const panicking = "CLAYER_TEST_PANIC"

func TestMain(m *testing.M) {
	how := os.Getenv(panicking)
	if how == "" {
		os.Exit(m.Run())
	}
	d, err := New("tty", os.Stderr, os.Environ())
	if err != nil {
		panic(err)
	}
	defer d.Close() // as the commands do
	d.Show(report.Event{Kind: report.Warning, Text: "drawn"})
	time.Sleep(300 * time.Millisecond) // a frame or two
	if how == "elsewhere" {            // no deferred call of main's is made
		go panic("out of order")
		time.Sleep(time.Minute)
	}
	panic("out of order")
}

// TestPanicLeavesTheTerminal: whichever goroutine panics, the cursor is shown,
// no mode is left, what the panic says begins a line, and so does what follows.
func TestPanicLeavesTheTerminal(t *testing.T) {
	for _, how := range []string{"here", "elsewhere"} {
		t.Run(how, func(t *testing.T) {
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), panicking+"="+how, "TERM=xterm-256color", "NO_COLOR=1", "CI=")
			tty, err := ptytest.Start(cmd, &pty.Winsize{Cols: 80, Rows: 50})
			if err != nil {
				t.Fatal(err)
			}
			defer tty.Close()
			emu := vt.NewEmulator(80, 50)
			go io.Copy(io.Discard, emu) // what a terminal answers
			raw, _ := io.ReadAll(tty)   // until it has ended
			emu.Write(raw)
			if err := cmd.Wait(); err == nil {
				t.Error("it did not panic")
			}
			screen := emu.String()
			var warned, panicked bool
			for line := range strings.SplitSeq(screen, "\n") {
				warned = warned || strings.HasPrefix(line, "warning: drawn")
				panicked = panicked || strings.HasPrefix(line, "panic: out of order")
			}
			if !warned || !panicked {
				t.Errorf("warned %v, panicked %v:\n%s", warned, panicked, screen)
			}
			if emu.CursorHidden() || emu.IsAltScreen() || emu.CursorPosition().X != 0 {
				t.Errorf("cursor hidden %v at %v, alternate screen %v:\n%q", emu.CursorHidden(), emu.CursorPosition(), emu.IsAltScreen(), raw)
			}
			if !strings.Contains(string(raw), "planning") {
				t.Errorf("nothing was drawn: %q", raw)
			}
			if how == "here" && strings.Contains(screen, "planning") {
				t.Errorf("what was drawn for the time being is left:\n%s", screen)
			}
		})
	}
}
