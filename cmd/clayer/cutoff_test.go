//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/treetest"
)

// A solve of an edited file that is killed at any time leaves the old root or the
// new one, or what the next command makes the old one.
func TestKilledSolveIsTheOldOneOrTheNew(t *testing.T) {
	t.Parallel()
	const one = "RUN mkdir /d; for i in $(seq 300); do echo $i > /d/$i; done; echo 1 > /etc/conf\n"
	const two = "RUN mkdir /d; for i in $(seq 300); do echo new $i > /d/$i; done; rm /etc/os-release\nRUN rm -r /d; echo 2 > /etc/conf; echo d > /d\n"
	w := newWorkspace(t)
	solve := func(text string) {
		t.Helper()
		w.write("Containerfile", text)
		if _, stderr, code := w.run("solve", "--root", "root"); code != 0 {
			t.Fatal(stderr)
		}
	}
	tree := func() string {
		return treetest.Describe(t, w.path("root"), func(p string) bool { return p == "var/lib/clayer" })
	}
	original := tree()
	solve(one)
	was := tree()
	solve(two) // both are in the store now
	is := tree()
	var took time.Duration
	for i := range 12 {
		solve(one)
		w.write("Containerfile", two)
		cmd := w.command("solve", "--root", "root")
		start := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i > 0 { // the first shows how long it takes
			time.Sleep(took * time.Duration(i) / 12)
			cmd.Process.Kill()
		}
		cmd.Wait()
		if i == 0 {
			took = time.Since(start)
		}
		_, stderr, code := w.run("verify", "--root", "root")
		if code != 0 {
			t.Errorf("round %d: %s", i, stderr)
		}
		switch got := tree(); {
		case got == was && !strings.Contains(stderr, "as that command made it"):
		case got == is && !strings.Contains(stderr, "as it was before that command"):
		default:
			t.Errorf("round %d: neither the old root nor the new one\n%s", i, stderr)
			treetest.Diff(t, was, got)
		}
	}
	// An undo that was killed is taken back by a solve of what is applied, though
	// by the record there is nothing to do.
	for i := range 12 {
		solve(two)
		cmd := w.command("undo", "--root", "root")
		start := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			time.Sleep(took * time.Duration(i) / 12)
			cmd.Process.Kill()
		}
		cmd.Wait()
		if i == 0 {
			took = time.Since(start)
		}
		if _, stderr, code := w.run("status", "--root", "root", "--exit-code", "Containerfile"); code != 1 && tree() != is {
			t.Errorf("round %d: status of a root that is between two states: exit code %d\n%s", i, code, stderr)
		}
		solve(two)
		treetest.Diff(t, is, tree())
	}
	if _, stderr, code := w.run("undo", "--root", "root"); code != 0 {
		t.Fatal(stderr)
	}
	treetest.Diff(t, original, tree())
}

// A RUN in place that clayer was killed under is not forgotten: what it did is in
// the snapshot of the RUN that goes on, and undone with it.
func TestKilledInPlace(t *testing.T) {
	t.Parallel()
	clitest.RequireSandbox(t)
	if os.Geteuid() != 0 {
		t.Skip("not root: chroot")
	}
	dir := t.TempDir()
	root, other, cache := filepath.Join(dir, "root"), filepath.Join(dir, "other"), filepath.Join(dir, "cache")
	for _, r := range []string{root, other} {
		if err := clitest.MakeRoot(r); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "Containerfile")
	err := os.WriteFile(file, []byte(`RUN --mount=type=secret,id=tok,target=/opt/tok mkdir -p /opt/pkg; echo x > /opt/pkg/f; echo more >> /etc/os-release; [ -e /tmp/go ] || { touch /tmp/started; sleep 717.531; }`+"\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	args := func(root string) []string {
		return []string{"solve", "-f", file, "--root", root, "--cache-dir", cache, "--secret", "id=tok,src=" + file}
	}
	cmd := clayerCommand(t, append(args(root), "--sandbox=inplace")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, err1 := os.Stat(filepath.Join(root, "tmp/started"))
		_, err2 := os.Stat(filepath.Join(root, "var/lib/clayer/running.reading"))
		if err1 == nil && err2 == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err1, err2)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for end := time.Now().Add(3 * time.Minute); exec.Command("pgrep", "-f", "sleep 717.531").Run() == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the RUN goes on")
		}
	}
	for _, r := range []string{root, other} {
		if err := os.WriteFile(filepath.Join(r, "tmp/go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := clayerCommand(t, append(args(root), "--sandbox=inplace")...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "cut off while") || !strings.Contains(string(out), "1 ran") {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Lstat(filepath.Join(root, "opt/tok")); err == nil {
		t.Error("the secret is left")
	}
	// What the RUN that was killed did to a file of the machine is there still, and the next
	// one has added to it: that is in no store.
	out, err = clayerCommand(t, append(args(other), "--sandbox=inplace")...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "1 ran") {
		t.Fatalf("%v\n%s", err, out)
	}
	for r, want := range map[string]int{root: 2, other: 1} {
		release, err := os.ReadFile(filepath.Join(r, "etc/os-release"))
		if n := strings.Count(string(release), "more\n"); err != nil || n != want {
			t.Errorf("%s: %d times, want %d (%v)", r, n, want, err)
		}
		if f, err := os.ReadFile(filepath.Join(r, "opt/pkg/f")); err != nil || string(f) != "x\n" {
			t.Errorf("%s: %q %v", r, f, err)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(root, "var/lib/clayer/running*")); len(files) > 0 {
		t.Errorf("left: %v", files)
	}
}
