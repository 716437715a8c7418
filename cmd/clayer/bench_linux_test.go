package main

import (
	"bytes"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"

	"github.com/clayer/clayer/solver/exec"
	"github.com/clayer/clayer/solver/sandbox"
)

// goBuild builds a program of this repository.
func goBuild(t *testing.T, name, pkg string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), name)
	if out, err := osexec.Command("go", "build", "-o", exe, pkg).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return exe
}

// The bench works, on small trees: it is run rarely, and would rot.
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the program")
	}
	if _, err := sandbox.Check("overlay", sandbox.Options{Root: "/"}, exec.Engines...); err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("/dev/shm", "clayer-bench-test-") // a RUN has a /tmp of its own
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	bench, clayer := goBuild(t, "bench", "../../testdata/bench"), goBuild(t, "clayer", ".")
	c := osexec.Command(bench, "-quick", "-clayer", clayer, "-vs", clayer, "-dir", dir, "-trees", "S", "-what", "start,context,steps,packing,restoring,bump,composing")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"clayer solve, nothing to do (vs)", "plan: unchanged", "10 COPYs", "Packing S", "Restoring S", "Composing S at 100 MB/s"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("nothing of %q in:\n%s", want, out)
		}
	}

	// The page has the tables of the results, as the bench writes them.
	page, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(again, page, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := osexec.Command(bench, "-docs", again, "-results", "../../testdata/bench/results.json").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if now, err := os.ReadFile(again); err != nil || !bytes.Equal(now, page) {
		t.Errorf("docs/performance.md is not what testdata/bench/run -docs writes: %v", err)
	}
}
