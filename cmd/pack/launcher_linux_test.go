package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/clayer/clayer/cmd/pack/internal/npm"
)

// installed returns the command clayer that npm installs from the main package and from
// that of this platform, without a network.
func installed(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"npm", "node"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	r := newRelease(t)
	dir, prefix := t.TempDir(), t.TempDir()
	if err := npm.Write(r, dir, nil); err != nil {
		t.Fatal(err)
	}
	install := exec.Command("npm", "install", "--global", "--prefix", prefix, "--offline", "--no-audit", "--no-fund",
		filepath.Join(dir, npm.FileName(r, "container-layer")), filepath.Join(dir, npm.FileName(r, npm.PackageName(own(t, r)))))
	install.Env = append(os.Environ(), "HOME="+prefix, "npm_config_cache="+filepath.Join(prefix, "cache"))
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	return filepath.Join(prefix, "lib/node_modules/container-layer/bin/clayer.js")
}

// The launcher ends as the program ends, and passes on what it is sent.
func TestLauncher(t *testing.T) {
	clayer := installed(t)
	if out, err := exec.Command(clayer, "a b", "*").Output(); err != nil || string(out) != "clayer v1.2.3 a b *\n" {
		t.Errorf("%q, %v", out, err)
	}
	var ended *exec.ExitError
	if err := exec.Command(clayer, "exit", "130").Run(); !errors.As(err, &ended) || ended.ExitCode() != 130 {
		t.Errorf("exit 130: %v", err)
	}
	if err := exec.Command(clayer, "kill", "KILL").Run(); !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the program is killed: %v", err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.Command(clayer, "wait")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); !errors.As(err, &ended) || ended.ExitCode() != 42 {
			t.Errorf("%v: %v", sig, err)
		}
	}
}

// Newer versions of Node become the program: its process is the launcher's, and nothing is said
// about an experiment. Where that is forbidden, the launcher starts it.
func TestLauncherBecomesTheProgram(t *testing.T) {
	clayer := installed(t)
	has, err := exec.Command("node", "-p", "typeof process.execve").Output()
	if err != nil {
		t.Fatal(err)
	}
	run := func(node string) (same bool) {
		cmd := exec.Command(clayer, "pid")
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if node != "" {
			option := filepath.Join(t.TempDir(), "first.js")
			if err := os.WriteFile(option, []byte(node), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd.Env = append(os.Environ(), "NODE_OPTIONS=--require="+option)
		}
		if err := cmd.Run(); err != nil || errs.Len() > 0 || !strings.HasSuffix(out.String(), "\n") {
			t.Errorf("%s: %q, %v, %q", node, out.String(), err, errs.String())
		}
		return strings.TrimSpace(out.String()) == strconv.Itoa(cmd.Process.Pid)
	}
	if run("process.execve = () => { throw new Error('forbidden') }") {
		t.Error("it becomes the program where it may not")
	}
	if run("delete process.execve; process.execve = undefined") {
		t.Error("it becomes the program by an old version of Node")
	}
	if strings.TrimSpace(string(has)) != "function" {
		t.Skip("node has no process.execve (22.15, 23.11): whether the launcher becomes the program is not tested")
	}
	if !run("") {
		t.Error("it starts another process")
	}
}

// On a terminal, the program has it, and gets Ctrl-C once.
func TestLauncherOnATerminal(t *testing.T) {
	clayer := installed(t)
	cmd := exec.Command(clayer, "tty")
	f, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	_, _ = out.ReadFrom(f) // ends by an error of a terminal without processes
	f.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "terminal") {
		t.Errorf("%q, %v", out.String(), err)
	}

	cmd = exec.Command(clayer, "wait")
	if f, err = pty.Start(cmd); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	interrupted := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		switch {
		case strings.Contains(lines.Text(), "ready"):
			if _, err := f.WriteString("\x03"); err != nil {
				t.Fatal(err)
			}
		case strings.Contains(lines.Text(), "interrupted"):
			interrupted++
		}
	}
	var ended *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &ended) || ended.ExitCode() != 42 || interrupted != 1 {
		t.Errorf("interrupted %d times, %v", interrupted, err)
	}
}

// Without the package of this platform, the launcher says what to do.
func TestLauncherAlone(t *testing.T) {
	clayer := installed(t)
	if err := os.RemoveAll(filepath.Join(clayer, "../../../@container-layer")); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd := exec.Command(clayer)
	cmd.Stderr = &errs
	if err := cmd.Run(); err == nil || !strings.Contains(errs.String(), "--include=optional") {
		t.Errorf("%v: %s", err, &errs)
	}
}
