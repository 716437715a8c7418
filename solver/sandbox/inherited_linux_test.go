package sandbox_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/clayer/clayer/solver/sandbox"
	"github.com/moby/sys/reexec"
	"golang.org/x/sys/unix"
)

func init() {
	reexec.Register("descriptors", func() { // descriptors: those that this process was given
		for fd := range 1024 {
			// What the Go runtime opened for itself is closed on exec.
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
				fmt.Print(fd, " ")
			}
		}
	})
}

// inheritable returns a descriptor of a file outside of every root, as a shell's
// "exec 9<file" makes it: children inherit it.
func inheritable(t *testing.T) int {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 20) // above those that helpers are given
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// A RUN gets an empty stdin, stdout and stderr. A descriptor that this process
// inherited reaches neither RUN nor the helper, whose descriptors RUN can open
// by /proc/1/fd where the helper is process 1 of its namespace.
func TestRunGetsTheStandardStreamsAlone(t *testing.T) {
	fd := inheritable(t)
	sandboxes(t, func(t *testing.T, b testBox) {
		v, root := b.view(t)
		_, out, err := try(t, v, sandbox.Command{Argv: []string{"descriptors"}, Env: testEnv})
		if err != nil || out != "0 1 2 " {
			t.Errorf("RUN has %q, error %v", out, err)
		}
		_, out = sh(t, v, `cat; cat /proc/*/fd/`+strconv.Itoa(fd)+` 2>/dev/null || true`)
		if out != "" {
			t.Errorf("RUN reads %q", out)
		}
		if b.direct {
			if _, err := os.Stat(filepath.Join(root, "proc/self")); err == nil {
				t.Error("the root has a /proc: what RUN reads there says nothing")
			}
			return // a script takes a /proc
		}
		_, out, err = try(t, v, sandbox.Command{Script: []byte("#!/bin/sh\nexec descriptors\n"), Env: testEnv})
		if err != nil || out != "0 1 2 3 " { // 3 is the script, which its interpreter opens by this number
			t.Errorf("a script has %q, error %v", out, err)
		}
	})
}

// The command of "clayer run" gets the streams that it was given, and nothing else.
func TestExecGetsTheStandardStreamsAlone(t *testing.T) {
	inheritable(t)
	modes(t, func(t *testing.T, s *testOverlay) {
		out, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		v := newView(t, s)
		if err := v.Exec(context.Background(), sandbox.Command{Argv: []string{"descriptors"}, Env: testEnv}, os.Stdin, out, os.Stderr); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(out.Name())
		if err != nil || strings.TrimSpace(string(got)) != "0 1 2" {
			t.Errorf("the command has %q, error %v", got, err)
		}
	})
}
