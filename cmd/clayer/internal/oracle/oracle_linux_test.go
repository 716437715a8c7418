package oracle

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/rounds"
)

// usualSeed is where usual runs start, so that they are the same everywhere.
const usualSeed = 1

var (
	flagSeed     = flag.Uint64("oracle.seed", usualSeed, "the seed of the first case; 0 draws one")
	flagRounds   = flag.Int("oracle.rounds", -1, "how many cases at random, beside those in testdata; -1 is 40, and 300 with "+rounds.Variable)
	flagFailures = flag.Int("oracle.failures", 3, "after how many cases that fail it stops")
	flagCase     = flag.String("oracle.case", "", "a txtar archive with the only case to play, as a failure prints it; no difference is then allowed")
	flagShrink   = flag.Bool("oracle.shrink", true, "make cases that fail smaller")
	flagProgram  = flag.String("oracle.program", "", "the program; none builds it")
	flagJobs     = flag.Int("oracle.jobs", 0, "how many cases at a time; 0 is one more than there are processors")
)

// TestOracle compares clayer with BuildKit.
func TestOracle(t *testing.T) {
	p := newPlayer(t)
	if *flagCase != "" {
		p.strict = true
		if difference := p.playFile(t, *flagCase); difference != "" {
			t.Error(difference)
		}
		return
	}
	t.Run("cases", func(t *testing.T) { p.playFiles(t, "testdata/*.txtar") })
	t.Run("differences", p.playDifferences)
	t.Run("random", p.playRandom)
}

func newPlayer(t *testing.T) *player { return newPlayerOn(t, makeBase) }

// newPlayerOn plays on the base that makeBase makes.
func newPlayerOn(t *testing.T, makeBase func(dir string) error) *player {
	if os.Geteuid() != 0 {
		t.Skip("not root: BuildKit and owners of files need it")
	}
	for _, name := range []string{"busybox", "tar", "cp"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	tool(t, "buildkitd")
	dir := t.TempDir()
	base, layout, daemon := filepath.Join(dir, "base"), filepath.Join(dir, "layout"), filepath.Join(dir, "daemon")
	if err := makeBase(base); err != nil {
		t.Fatal(err)
	}
	manifest, err := makeLayout(base, layout)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(daemon, 0o755); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // a plain user has to reach it
			t.Fatal(err)
		}
	}
	p := &player{dir: dir, counts: make(map[string]int)}
	if p.baseTree, err = describe(base); err != nil {
		t.Fatal(err)
	}
	if err := serve(t); err != nil {
		t.Fatal(err)
	}
	p.buildkit = startBuildkit(t, daemon, layout, manifest)
	p.clayer = &clayer{*flagProgram, base, layout}
	if p.program == "" {
		p.program = clitest.Build(t, dir)
	}
	// BuildKit fetches the base by one build, before there are several.
	if difference, err := p.play(t.Context(), &Case{Lines: []string{"RUN true"}}, always); difference != "" || err != nil {
		t.Fatalf("the base alone: %s, error %v", difference, err)
	}
	return p
}

// playFiles plays the cases that have to be equal.
func (p *player) playFiles(t *testing.T, pattern string) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			if difference := p.playFile(t, file); difference != "" {
				t.Error(difference)
			}
		})
	}
}

func (p *player) playFile(t *testing.T, file string) (difference string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(data)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	difference, err = p.play(t.Context(), c, slices.Concat(always, others))
	if err != nil {
		t.Fatal(err)
	}
	return difference
}

// playDifferences plays the case of each known difference, which has to be one.
func (p *player) playDifferences(t *testing.T) {
	p.strict = true
	defer func() { p.strict = false }()
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for dir, list := range map[string][]*difference{"intended": intended, "unmended": unmended} {
		for _, d := range list {
			file := filepath.Join("testdata", dir, d.name+".txtar")
			known[file] = true
			t.Run(d.name, func(t *testing.T) {
				if p.playFile(t, file) == "" {
					t.Errorf("there is no difference any more: remove %s from differences_linux_test.go, and move %s to testdata", d.name, file)
				}
			})
		}
	}
	for _, file := range files {
		if !known[file] {
			t.Errorf("%s shows no known difference", file)
		}
	}
}

// playRandom plays cases that are drawn.
func (p *player) playRandom(t *testing.T) {
	seed, count, jobs := *flagSeed, *flagRounds, *flagJobs
	if seed == 0 {
		seed = rand.Uint64N(1_000_000_000) + 1
	}
	if count < 0 {
		count = rounds.Of(10, 40, 300)
	}
	if jobs == 0 {
		jobs = runtime.GOMAXPROCS(0) + 1
	}
	t.Logf("the seeds are %d to %d", seed, seed+uint64(count)-1)
	clear(p.counts)
	begun := time.Now()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	next, failed := 0, 0
	// The test ends in time, whatever the machine is busy with.
	deadline, bounded := t.Deadline()
	deadline = deadline.Add(-2 * time.Minute)
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next >= count || failed >= *flagFailures || bounded && time.Now().After(deadline) {
			return 0, false
		}
		next++
		return seed + uint64(next) - 1, true
	}
	for range jobs {
		wg.Go(func() {
			for {
				n, ok := take()
				if !ok {
					return
				}
				if p.playSeed(ctx, t, n) {
					continue
				}
				mu.Lock()
				failed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	var counts []string
	for _, name := range slices.Sorted(maps.Keys(p.counts)) {
		counts = append(counts, fmt.Sprintf("%s %d", name, p.counts[name]))
	}
	if next < count && failed < *flagFailures {
		t.Log("there was no time for more")
	}
	t.Logf("%d of %d cases in %.0f s; instructions: %s", next, count, time.Since(begun).Seconds(), strings.Join(counts, ", "))
}

// playSeed reports whether clayer and BuildKit agree on a case.
func (p *player) playSeed(ctx context.Context, t *testing.T, seed uint64) bool {
	c := draw(seed)
	ways := append(slices.Clip(always), others[seed%uint64(len(others))])
	difference, err := p.play(ctx, c, ways)
	if err != nil {
		t.Errorf("seed %d: %v\n%s", seed, err, c)
		return false
	}
	if difference == "" {
		return true
	}
	if *flagShrink {
		c = shrink(c, func(c *Case) bool {
			d, err := p.play(ctx, c, ways)
			if err == nil && d != "" {
				difference = d
			}
			return err == nil && d != ""
		})
	}
	t.Errorf("seed %d: %s\n\nThe case (-oracle.case=FILE plays it alone; -oracle.seed=%d -oracle.rounds=1 the one that was drawn):\n%s", seed, difference, seed, c)
	return false
}
