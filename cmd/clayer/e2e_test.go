//go:build linux

package main

import (
	"os"
	"os/exec"
	"testing"
)

// clayerCommand returns a command that runs this test binary as clayer.
func clayerCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Args[0] = "clayer"
	return cmd
}
