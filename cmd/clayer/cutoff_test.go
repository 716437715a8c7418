//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/solver/rootfs/treetest"
)

// A solve of an edited file that is killed at any time leaves the old root or the
// new one, or what the next command makes the old one.
func TestKilledSolveIsTheOldOneOrTheNew(t *testing.T) {
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
		if i > 0 { // the first tells how long it takes
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
	if _, stderr, code := w.run("undo", "--root", "root"); code != 0 {
		t.Fatal(stderr)
	}
	treetest.Diff(t, original, tree())
}
