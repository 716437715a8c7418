package clitest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clayer/clayer/internal/testexec"
)

// RequireSandbox skips, by name, what needs RUN where RUN can't be had.
func RequireSandbox(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("busybox is not installed: no root file system to test in")
	}
	if out, err := exec.Command("unshare", "-Ur", "true").CombinedOutput(); os.Geteuid() != 0 && err != nil {
		t.Skipf("neither root nor user namespaces: %s", out)
	}
}

// MakeRoot makes a root file system that has a shell and what busybox has.
func MakeRoot(dir string) error {
	for _, d := range []string{"bin", "etc", "tmp", "proc", "dev", "sys", "run", "var/lib", "opt", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := testexec.WriteFile(filepath.Join(dir, "bin", "busybox"), data); err != nil {
		return err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "etc", "os-release"), []byte("ID=testroot\nVERSION_ID=1\n"), 0o644)
}
