package oracle

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/ocitest"
	"github.com/clayer/clayer/internal/rounds"
)

var (
	flagCorpus = flag.String("oracle.corpus", "*", "which files of testdata/corpus to play, by patterns with commas between them")
	flagLater  = flag.Bool("oracle.later", false, "play those of the corpus too that are not expected to work yet")
	flagDir    = flag.String("oracle.dir", "", "a directory to play the corpus in, that stays; none is a temporary one")
)

// TestCorpusPlans plans and checks every file of the corpus: nothing is an error. Images that
// files copy from are in a registry on loopback.
func TestCorpusPlans(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("busybox is not installed")
	}
	dir := t.TempDir()
	base, program := filepath.Join(dir, "base"), *flagProgram
	if err := makeToolbox(base); err != nil {
		t.Fatal(err)
	}
	if program == "" {
		program = clitest.Build(t, dir)
	}
	images, err := makeImages(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	if err := push(t.Context(), images, ocitest.New(t, ocitest.Options{}).Host); err != nil {
		t.Fatal(err)
	}
	for _, r := range corpus(t) {
		t.Run(r.name, func(t *testing.T) {
			if r.later != "" && !*flagLater {
				t.Skip(r.later)
			}
			work := t.TempDir()
			if err := r.write(work); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{r.args("plan", work, images, "--root="+base, "--cache-dir="+work+"/cache"), {"check", r.path(work)}} {
				out, err := session(t.Context(), work, program, args...).CombinedOutput()
				if code := exitCode(err); code > 1 || code == 1 && args[0] == "plan" {
					t.Errorf("clayer %s: exit code %d\n%s", strings.Join(args, " "), code, out)
				}
			}
		})
	}
}

// TestCorpus builds the files of the corpus, and compares the trees with those of BuildKit.
// A second root gets everything from the store. In both the probe of the file succeeds.
func TestCorpus(t *testing.T) {
	all := corpus(t)
	p := newPlayerOn(t, makeToolbox)
	images, err := makeImages(filepath.Join(p.dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	jobs := make(chan struct{}, runtime.GOMAXPROCS(0)+1)
	every := rounds.Of(8, 2, 1)
	t.Run("files", func(t *testing.T) {
		for i, r := range all {
			t.Run(r.name, func(t *testing.T) {
				switch {
				case r.later != "" && !*flagLater:
					t.Skip(r.later)
				case r.planned:
					t.Skip("it is planned only")
				case i%every > 0 && *flagCorpus == "*":
					t.Skip("not in a short run")
				}
				t.Parallel()
				jobs <- struct{}{}
				defer func() { <-jobs }()
				p.playRecipe(t, r, images)
			})
		}
	})
}

func (p *player) playRecipe(t *testing.T, r *recipe, images map[string]layout) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := t.TempDir()
	if *flagDir != "" {
		dir = filepath.Join(*flagDir, r.name)
	}
	files, archive, want := filepath.Join(dir, "context"), filepath.Join(dir, "tree.tar"), filepath.Join(dir, "buildkit")
	if err := r.withoutSyntax().write(files); err != nil {
		t.Fatal(err)
	}
	refused, err := p.run(ctx, archive, r.buildkitArgs(files, layout{dir: p.layout, manifest: p.buildkit.base}, images))
	if err != nil || refused != nil {
		t.Fatalf("BuildKit: %v %+v", err, refused)
	}
	if err := unpack(ctx, archive, want); err != nil {
		t.Fatal(err)
	}
	sandboxes := []string{"overlay"}
	if r.inPlace() {
		sandboxes = append(sandboxes, "inplace")
	}
	for _, sandbox := range sandboxes {
		first, second, cache := filepath.Join(dir, sandbox), filepath.Join(dir, sandbox+"-second"), filepath.Join(dir, sandbox+"-cache")
		roots := []string{first, second}
		if sandbox == "inplace" {
			roots = roots[:1] // what restores does not depend on what has built
		}
		for _, root := range roots {
			if out, err := exec.CommandContext(ctx, "cp", "-a", p.clayer.base, root).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v\n%s", err, out)
			}
			options := []string{"--root=" + root, "--cache-dir=" + cache, "--sandbox=" + sandbox}
			said, err := session(ctx, dir, p.program, r.args("solve", files, images, options...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", sandbox, err, said)
			}
			if ran := regexp.MustCompile(`\d+ ran`).Find(said); root == second && ran != nil {
				t.Errorf("%s: on the second root %s\n%s", sandbox, ran, said)
			}
			p.compareRecipe(t, want, root)
			probe := slices.Concat(r.args("run", files, images, "--root="+root, "--cache-dir="+cache), []string{"--", "/bin/sh", "-c", r.probe})
			if out, err := session(ctx, dir, p.program, probe...).CombinedOutput(); err != nil {
				t.Errorf("%s: the probe %q fails: %v\n%s", sandbox, r.probe, err, out)
			}
		}
	}
}

// caches are what no snapshot has, wherever the root has them.
var caches = regexp.MustCompile(`^"(?:\S*/)?(?:\.cache/(?:pip|uv|go-build)|\.npm/_cacache|\.cargo/registry|var/cache/apt/archives)[/"]`)

// compareRecipe compares a root with the tree that BuildKit has made. Of a file that ends
// with a stage from scratch that tree has no base.
func (p *player) compareRecipe(t *testing.T, want, root string) {
	t.Helper()
	trees := make([][]string, 2)
	for i, dir := range []string{want, root} {
		lines, err := describe(dir)
		if err != nil {
			t.Fatal(err)
		}
		trees[i] = slices.DeleteFunc(lines, caches.MatchString)
	}
	if _, err := os.Lstat(filepath.Join(want, "bin/busybox")); err != nil {
		for i := range trees {
			trees[i] = slices.DeleteFunc(trees[i], func(l string) bool { _, ok := slices.BinarySearch(p.baseTree, l); return ok })
		}
	}
	if !slices.Equal(trees[0], trees[1]) {
		t.Errorf("the trees differ (-BuildKit +clayer, %s):\n%s", filepath.Base(root), diff(trees[0], trees[1]))
	}
}

const sessionToken = "BUILD_TOKEN=of-the-session"

// session is the program in a session that has nothing of its own.
func session(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + searchPath, "HOME=/root", "TMPDIR=" + dir, sessionToken}
	return cmd
}

// A layout is an image of the machine.
type layout struct {
	dir      string
	manifest digest.Digest
	context  string // what names it for --build-context
}

func (l layout) named(image string) []string { return named(image, l.dir, l.manifest) }

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // it is the error of the command itself
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return -1
}
