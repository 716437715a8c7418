package mounts

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/solver/sandbox"
)

// TestKilled checks that what a killed process leaves is removed when the next RUN has mounts.
func TestKilled(t *testing.T) {
	prepare := func(dir string) *Mounts {
		src := &Source{
			Dir:    dir,
			Failed: func(err error) { t.Error(err) },
			Agents: map[string]Agent{"default": {Socket: "/nosuch"}},
			Show: func(_ context.Context, _ *frontend.Mount, dir func() (string, error), _ *sandbox.Mount) error {
				temp, err := dir()
				if err != nil {
					return err
				}
				return os.WriteFile(filepath.Join(temp, "files"), []byte("of the context"), 0o600)
			},
		}
		run := &frontend.Run{Mounts: []frontend.Mount{
			{Mount: mount.Mount{Type: mount.Bind, Target: "/src"}},
			{Mount: mount.Mount{Type: mount.SSH, ID: "default", Target: "/agent", Mode: 0o600}},
		}}
		m, err := src.Prepare(t.Context(), run, new([]string))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if dir := os.Getenv("CLAYER_TEST_KILLED"); dir != "" {
		prepare(dir)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}

	dir, temp := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temp)
	list := func() (all []string) {
		for _, d := range []string{dir, temp} {
			found, err := filepath.Glob(filepath.Join(d, "*"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, found...)
		}
		return all
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "CLAYER_TEST_KILLED="+dir)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the process that is killed: %v\n%s", err, out)
	}
	left := list()
	if len(left) != 2 {
		t.Fatalf("left of a killed process: %q, want a copy and a socket's directory", left)
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, path := range left {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	running := prepare(dir)
	if now := list(); len(now) != 2 {
		t.Errorf("there are %q, want those of this process alone", now)
	}
	running.Release()
	if now := list(); len(now) > 0 {
		t.Errorf("%q are there after their RUN", now)
	}
}
