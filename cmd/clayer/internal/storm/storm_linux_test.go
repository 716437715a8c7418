package storm

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/ocitest"
	"github.com/clayer/clayer/internal/rounds"
)

// usualSeed begins the rounds of every run, so that a failure is of the change that
// is tested; -storm.seed=0 looks for others.
const usualSeed = 500300

var (
	flagSeed     = flag.Uint64("storm.seed", usualSeed, "the seed of the first round; 0 draws one")
	flagRounds   = flag.Int("storm.rounds", -1, "how many rounds at random, beside the cases in testdata; -1 is 10, and 200 with "+rounds.Variable)
	flagFailures = flag.Int("storm.failures", 3, "after how many rounds that fail it stops")
	flagRound    = flag.String("storm.round", "", "a file with the only round to play, as a failure prints it")
	flagAll      = flag.Bool("storm.all", false, "print rounds that succeed too")
	flagCases    = flag.Bool("storm.cases", true, "play the rounds in testdata too")
	flagShrink   = flag.Bool("storm.shrink", true, "make the first round that fails smaller")
	flagExe      = flag.String("storm.exe", "", "the program; none builds it")
	flagJobs     = flag.Int("storm.jobs", runtime.GOMAXPROCS(0), "how many rounds at a time")
)

// roundFile names the variable with the file that holds the round which this
// process is to play.
const roundFile = "STORM_ROUND"

// player is the name of the test binary that plays rounds.
const player = "player"

func TestMain(m *testing.M) {
	if os.Args[0] == launcher {
		fmt.Fprintln(os.Stderr, launch(os.Args[1], os.Args[2:]))
		os.Exit(99)
	}
	os.Exit(m.Run())
}

// TestStorm plays rounds, each in a process of its own.
func TestStorm(t *testing.T) {
	require(t)
	dir := t.TempDir()
	for d := dir; d != filepath.Dir(d) && d != filepath.Clean(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // a plain user comes in
			t.Fatal(err)
		}
	}
	// Both are static, so that they run in a machine without libraries, and
	// without the race detector, which other tests have.
	build := func(out string, args ...string) {
		cmd := exec.Command("go", append(args, "-o", out)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, text)
		}
	}
	build(filepath.Join(dir, player), "test", "-c")
	exe := *flagExe
	if exe == "" {
		exe = filepath.Join(dir, "clayer")
		build(exe, "build", "-C", "../..")
	}
	if _, err := ocitest.Command(); err == nil {
		t.Setenv(registryHost, ocitest.New(t, ocitest.Options{}).Host)
	} else {
		t.Logf("a directory stands for the registry: %v", err)
	}
	if *flagRound != "" {
		playFile(t, dir, exe, *flagRound)
		return
	}
	// What failed once, and was mended.
	cases, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if !*flagCases {
		cases = nil
	}
	for _, file := range cases {
		playFile(t, dir, exe, file)
	}

	seed, count := *flagSeed, *flagRounds
	if seed == 0 {
		seed = rand.Uint64N(1_000_000_000) + 1
	}
	if count < 0 {
		count = rounds.Of(3, 10, 200)
	}
	if count > 0 {
		t.Logf("the seeds are %d to %d", seed, seed+uint64(count)-1)
	}

	// The test ends in time, whatever the machine is busy with.
	deadline, bounded := t.Deadline()
	deadline = deadline.Add(-3 * time.Minute)
	late := func() bool { return bounded && time.Now().After(deadline) }
	begun := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	next, failed := 0, 0
	for range *flagJobs {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				stop := i >= count || failed >= *flagFailures || late()
				if !stop {
					next++
				}
				mu.Unlock()
				if stop {
					return
				}
				r := draw(seed + uint64(i))
				start := time.Now()
				out, err := playApart(dir, exe, r)
				if *flagAll {
					t.Logf("seed %d: %.1f s\n%s", r.Seed, time.Since(start).Seconds(), out)
				}
				if err == nil {
					continue
				}
				mu.Lock()
				failed++
				first := failed == 1
				mu.Unlock()
				t.Errorf("seed %d: %v\n%s\nrepeat it: go test ./cmd/clayer/internal/storm -run TestStorm -storm.seed=%d -storm.rounds=1", r.Seed, err, out, r.Seed)
				if first && *flagShrink {
					small := shrink(r, func(r *Round) bool {
						if late() {
							return false
						}
						_, err := playApart(dir, exe, r)
						return err != nil
					})
					data, err := json.MarshalIndent(small, "", "\t")
					if err != nil {
						t.Error(err)
					}
					t.Logf("smaller, and it still fails (-storm.round=FILE plays it alone):\n%s\n%s", small, data)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d rounds in %.0f s", next, count, time.Since(begun).Seconds())
	if next < count && failed < *flagFailures {
		t.Log("there was no time for more")
	}
}

// playFile plays the round in a file.
func playFile(t *testing.T, dir, exe, file string) {
	t.Run(filepath.Base(file), func(t *testing.T) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r := new(Round)
		if err := json.Unmarshal(data, r); err != nil {
			t.Fatal(err)
		}
		out, err := playApart(dir, exe, r)
		t.Log(out)
		if err != nil {
			t.Error(err)
		}
	})
}

// require skips, by name, where there can be no storm.
func require(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: no mount namespace and no tmpfs of limited size")
	}
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("busybox is not installed: no root file system to test in")
	}
	if auditArch[runtime.GOARCH] == 0 {
		t.Skipf("no seccomp filter for %s", runtime.GOARCH)
	}
}

// playApart plays a round in a process with namespaces of its own, and returns
// what it printed.
func playApart(dir, exe string, r *Round) (output string, err error) {
	ground, err := os.MkdirTemp(dir, "round-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(ground)
	if err := os.Chmod(ground, 0o755); err != nil {
		return "", err
	}
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return "", err
	}
	file := filepath.Join(ground, "round.json")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(dir, player), "-test.run=^TestRound$", "-test.v", "-test.timeout=0")
	cmd.Env = append(os.Environ(), roundFile+"="+file, "STORM_EXE="+exe)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestRound plays one round. It is the first process of its namespaces.
func TestRound(t *testing.T) {
	file := os.Getenv(roundFile)
	if file == "" {
		t.Skip("TestStorm starts it")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := new(Round)
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	p, err := newPlay(t, filepath.Join(filepath.Dir(file), "machine"), os.Getenv("STORM_EXE"), r)
	if err != nil {
		t.Fatal(err)
	}
	p.run()
}

func newPlay(t *testing.T, dir, exe string, r *Round) (*play, error) {
	if os.Getpid() != 1 {
		return nil, errors.New("not in a PID namespace")
	}
	exe, err := enterMachine(dir, exe)
	if err != nil {
		return nil, err
	}
	os.Setenv("TMPDIR", "/tmp")
	p := &play{t: t, round: r, www: newServer()}
	if p.ground, err = newGround(groundDir, r); err != nil {
		return nil, err
	}
	p.exe = exe
	p.far, err = newFar(t, p.ground, r)
	return p, err
}
