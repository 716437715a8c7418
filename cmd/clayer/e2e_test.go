//go:build linux

package main

import (
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/leftover"
)

// built is clayer as it is released, built once.
var built struct {
	once sync.Once
	dir  string
	path string
}

// clayerProgram returns the path of a clayer without the race detector, with which each of
// some thousand processes takes ten times as long to start. The stories of TestScripts
// run this test binary as clayer, and so with the detector.
func clayerProgram(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "clayer-test-")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		built.dir = dir
		built.path = clitest.Build(t, dir)
	})
	if built.path == "" {
		t.Fatal("clayer could not be built")
	}
	return built.path
}

func init() {
	afterTests = func() error {
		if built.dir != "" {
			_ = os.RemoveAll(built.dir)
		}
		return leftover.Check()
	}
}

// clayerCommand returns a command that runs clayer.
func clayerCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), clayerProgram(t), args...)
	cmd.Args[0] = "clayer"
	return cmd
}
