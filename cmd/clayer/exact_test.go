//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/rounds"
	"github.com/clayer/clayer/internal/treetest"
)

// randomRun returns a RUN that does the same on the same files always, and
// something else on others.
func randomRun(r *rand.Rand) string {
	f := func() string { return fmt.Sprintf("/w/f%d", r.IntN(4)) }
	d := func() string { return fmt.Sprintf("/w/d%d", r.IntN(3)) }
	pool := []string{
		fmt.Sprintf("echo %d >> %s", r.IntN(100), f()),
		fmt.Sprintf("echo %d > %s", r.IntN(3), f()),
		fmt.Sprintf("rm -rf %s", f()),
		fmt.Sprintf("rm -rf %s; mkdir %s; echo %d > %s/x", d(), d(), r.IntN(9), d()),
		fmt.Sprintf("mkdir -p %s && cp -r /w/f* %s", d(), d()),
		fmt.Sprintf("[ -e %s ] && mv %s %s", f(), f(), d()),
		fmt.Sprintf("ls /w > %s; ls %s >> %s", f(), d(), f()),
		fmt.Sprintf("ln -sfn %s %s", d(), f()),
		fmt.Sprintf("chmod 0%d%d%d %s", 4+r.IntN(4), r.IntN(8), r.IntN(8), f()),
		fmt.Sprintf("ln -f %s %s", f(), f()),
		fmt.Sprintf("rm -rf %s; echo %d > %s", d(), r.IntN(9), d()),
	}
	// Names beside /w: a RUN of a plain user can't remove what the root has there.
	top := fmt.Sprintf("/t%d", r.IntN(3))
	for _, make := range []string{"mkdir -p %[1]s/d; echo %[2]d > %[1]s/d/x", "echo %[2]d > %[1]s", "ln -s w%[2]d %[1]s", "mkdir -p /new/d; echo %[2]d > /new/d/y; mv /new %[1]s"} {
		pool = append(pool, fmt.Sprintf("[ -e %[1]s ] || { "+make+"; }", top, r.IntN(9)))
	}
	return "RUN mkdir -p /w; " + pool[r.IntN(len(pool))] + " || true"
}

// Whatever is edited in whatever order, in one root that is solved again and
// again: what is in the store afterwards restores to the same tree that a build
// from nothing gives. (No layer is composed for order alone: what such a one saw
// of the layers before it enters no key, and so may be old.)
func TestEditsGiveExactSnapshots(t *testing.T) {
	t.Parallel()
	editsGiveExactSnapshots(t, rounds.Of(3, 4, 12), randomRun, func(r *rand.Rand, _ int, _ string) string { return randomRun(r) })
}

// The same where half of the edits are of a comment, and every RUN gives what it makes the
// same times: what follows is found by its second key, and is what a build makes.
func TestEditsThatMakeTheSame(t *testing.T) {
	t.Parallel()
	still := func(r *rand.Rand) string {
		return randomRun(r) + "; touch -hd @1000000000 / $(find /w /t? /new 2>/dev/null) # 0"
	}
	found := editsGiveExactSnapshots(t, rounds.Of(2, 3, 12), still, func(r *rand.Rand, n int, line string) string {
		if n > 0 && r.IntN(3) == 0 {
			return still(r)
		}
		return fmt.Sprintf("%s%d", line, r.IntN(10))
	})
	if found == 0 {
		t.Error("no step was found by content")
	}
}

// editsGiveExactSnapshots does rounds of edits, and returns how often steps were found by
// content.
func editsGiveExactSnapshots(t *testing.T, rounds int, run func(*rand.Rand) string, edit func(r *rand.Rand, n int, line string) string) (byContent int) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range rounds {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		w := &fall{workspace: newWorkspace(t), t: t, env: []string{"TMPDIR=/tmp"}}
		if round%2 == 1 && os.Geteuid() == 0 {
			w.user = 65534
			w.openFor(65534)
		}
		owned := func(root string) string {
			t.Helper()
			if err := exec.Command("chown", "-hR", fmt.Sprint(w.user), w.path(root)).Run(); err != nil {
				t.Fatal(err)
			}
			return root
		}
		layers := map[string][]string{"Containerfile": nil, "Containerfile.a": {"FROM base"}, "Containerfile.b": {"FROM scratch"}, "Containerfile.c": {"FROM base"}}
		names := []string{"Containerfile", "Containerfile.a", "Containerfile.b", "Containerfile.c"}
		for _, n := range names {
			for range 1 + r.IntN(3) {
				layers[n] = append(layers[n], run(r))
			}
		}
		var history strings.Builder
		// Of layers that know nothing of each other one may put a file where a later
		// one has something in a directory: that is reported, and is so in every root.
		conflict := 0
		compose := func(root, args string) {
			t.Helper()
			for n, lines := range layers {
				w.write(n, strings.Join(lines, "\n")+"\n")
			}
			stderr, code := w.clayer("compose base a b c --root=" + root + args)
			fmt.Fprintf(&history, "--- %s\n%v\n%s", root, layers, stderr)
			byContent += strings.Count(stderr, "found by content")
			if code == 4 && strings.Contains(stderr, "not a directory") {
				conflict++
			} else if code != 0 {
				t.Fatalf("exit code %d\n%s", code, history.String())
			}
		}
		compose(owned("root"), "")
		for e := range 3 {
			n := names[r.IntN(len(names))]
			lines := layers[n]
			i := r.IntN(len(lines))
			switch {
			case e == 0: // others build on it
				layers[names[0]][0] = edit(r, e, layers[names[0]][0])
			case strings.HasPrefix(lines[i], "FROM") || r.IntN(3) == 0:
				layers[n] = append(lines[:len(lines):len(lines)], run(r))
			default:
				lines[i] = edit(r, e, lines[i])
			}
			compose("root", "")
		}
		for _, root := range []string{"restored", "fresh"} {
			if err := clitest.MakeRoot(w.path(root)); err != nil {
				t.Fatal(err)
			}
		}
		conflict = 0
		compose(owned("restored"), "")
		compose(owned("fresh"), " --cache-dir="+w.path("cache/other"))
		if conflict == 1 {
			t.Errorf("round %d: a conflict in one of two roots\n%s", round, history.String())
		}
		for _, top := range []string{"w", "t0", "t1", "t2", "new"} {
			if want, got := content(t, w.path("fresh/"+top)), content(t, w.path("restored/"+top)); want != got {
				t.Errorf("round %d, user %d: /%s built from nothing:\n%s\nrestored:\n%s\n%s", round, w.user, top, want, got, history.String())
			}
		}
		exec.Command("rm", "-rf", w.dir).Run()
	}
	return byContent
}

var times = regexp.MustCompile(` \d+\.\d{9}`)

// content describes a tree without its times.
func content(t *testing.T, dir string) string {
	if st, err := os.Lstat(dir); err != nil {
		return ""
	} else if !st.IsDir() {
		data, _ := os.ReadFile(dir)
		target, _ := os.Readlink(dir)
		return fmt.Sprintf("%v %q %s", st.Mode(), data, target)
	}
	return times.ReplaceAllString(treetest.Describe(t, filepath.Clean(dir), nil), "")
}
