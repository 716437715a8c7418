// Package places runs the suite of solver/sandbox once more where things are hard:
// on an overlay, in a chroot, in gVisor, as a user without privilege. It has no
// race detector there, which the suite itself has: in gVisor it takes minutes.
package places

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// placeVariable says to the suite where it is, see its setUpPlace.
const placeVariable = "CLAYER_TEST_PLACE"

// suite is what runs in most places.
const suite = "^(TestWhatARunChanged|TestStatus|TestWhatARunLeavesBehindIsEnded|TestCancel|TestUser)$/^(root|user|inplace_by_ctime)$"

// innerSuite is for where one is root of a user namespace alone.
const innerSuite = "^(TestWhatARunChanged|TestStatus|TestWhatARunLeavesBehindIsEnded|TestCancel)$/^(user|inplace_by_ctime)$"

// A place is somewhere to run the suite.
type place struct {
	name  string
	run   string                     // which tests
	start func(exe string) *exec.Cmd // nil: as it is, in a mount namespace of its own
	holds string                     // what the output has to hold
}

var places = []place{
	{name: "a root that is an overlay", run: suite + "|^TestOverlayOverAnOverlay$"},
	{name: "a chroot", run: suite},
	{name: "a kernel without open_tree", run: "^TestWhatARunChanged$/^root$|^TestMounts$"},
	{name: "a read-only root", run: "^TestWhatARunChanged$/^(root|user)$"},
	{name: "other mounts in the root", run: "^(TestOtherMounts|TestMountStubsTakeNothingElseAlong)$"},
	{name: "subordinate ids", run: "^TestSubordinateIDs$|^TestWhatARunChanged$/^user$"},
	{name: "unshare -Urm", run: innerSuite, start: func(exe string) *exec.Cmd { return exec.Command("unshare", "-Urm", exe) }},
	{name: "bubblewrap", run: innerSuite, start: func(exe string) *exec.Cmd {
		return exec.Command("bwrap", "--dev-bind", "/", "/", "--proc", "/proc", "--unshare-user", "--unshare-pid", "--uid", "0", "--gid", "0", "--cap-add", "ALL", exe)
	}},
	{name: "gVisor", run: suite + "|^TestInPlace", start: func(exe string) *exec.Cmd {
		return exec.Command("runsc", "--root", filepath.Join(filepath.Dir(exe), "runsc"), "--network=none", "--ignore-cgroups", "do", "--", exe)
	}, holds: "--- PASS: TestWhatARunChanged/inplace_by_ctime/"},
}

// build builds the suite into a directory that everybody may enter.
func build(t *testing.T) (exe string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	if testing.Short() {
		t.Skip("-short")
	}
	dir, err := os.MkdirTemp("", "sandbox-place-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := exec.Command("rm", "-rf", dir).Run(); err != nil {
			t.Error(err)
		}
	})
	exe = filepath.Join(dir, "sandbox.test")
	cmd := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-o", exe, "github.com/clayer/clayer/solver/sandbox")
	cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "tmp"), 0o777), os.Chmod(filepath.Join(dir, "tmp"), 0o777)); err != nil {
		t.Fatal(err)
	}
	return exe
}

// runs runs a suite, and returns what it skipped and what failed.
func runs(t *testing.T, cmd *exec.Cmd, args ...string) (out string) {
	t.Helper()
	cmd.Args = append(append(cmd.Args, "-test.v", "-test.timeout=9m"), args...)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	passed := 0
	for l := range strings.Lines(string(said)) {
		l = strings.TrimRight(l, "\n")
		if strings.Contains(l, "--- PASS: ") {
			passed++
		} else if strings.Contains(l, "SKIP") && !strings.Contains(l, "/inplace_") || err != nil && !strings.Contains(l, "=== ") {
			t.Log(l)
		}
	}
	if passed == 0 {
		t.Errorf("no test ran:\n%s", said)
	}
	t.Logf("%d tests passed", passed)
	return string(said)
}

func TestHardPlaces(t *testing.T) {
	exe := build(t)
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(exe)
			if p.start != nil {
				cmd = p.start(exe)
				if _, err := exec.LookPath(cmd.Args[0]); err != nil {
					t.Skipf("%s is not installed", cmd.Args[0])
				}
				if out, err := p.start("/bin/true").CombinedOutput(); err != nil {
					t.Skipf("%s does not work here: %v: %s", cmd.Args[0], err, out)
				}
			} else {
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
			}
			cmd.Dir = filepath.Dir(exe)
			cmd.Env = append(os.Environ(), placeVariable+"="+p.name, "TMPDIR="+filepath.Join(cmd.Dir, "tmp"))
			if out := runs(t, cmd, "-test.short", "-test.run="+p.run); !strings.Contains(out, p.holds) {
				t.Errorf("no %q:\n%s", p.holds, out)
			}
		})
	}
}

// TestNobody runs all tests once more as a user without any privilege.
func TestNobody(t *testing.T) {
	exe := build(t)
	tmp := filepath.Join(filepath.Dir(exe), "tmp")
	cmd := exec.Command(exe)
	cmd.Dir = tmp
	// In place, a directory in /tmp is no part of the root.
	here, err := os.MkdirTemp(".", "nobody-")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(here) })
		err = os.Chown(here, 65534, 65534)
	}
	if err == nil {
		here, err = filepath.Abs(here)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "HOME="+tmp, "CLAYER_TEST_DIR="+here)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	runs(t, cmd, "-test.skip=^(TestLarge|TestManySteps|TestDeepPaths)")
}
