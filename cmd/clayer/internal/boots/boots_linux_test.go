package boots

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/hosttest"
	"github.com/clayer/clayer/internal/rounds"
)

// usualSeed is where usual runs start, so that a failure is of the change that is tested.
const usualSeed = 1

var (
	flagSeed  = flag.Uint64("boots.seed", usualSeed, "the seed of the first boot; 0 draws one")
	flagCount = flag.Int("boots.count", -1, "how many boots, beside those in testdata; -1 is as many as the tier has")
	flagBoot  = flag.String("boots.boot", "", "a file with the only boot to play, as a failure prints it")
	flagExe   = flag.String("boots.exe", "", "the program; none builds it")
	flagJobs  = flag.Int("boots.jobs", 3, "how many boots at a time")
)

// apart names the variable that says that this process has namespaces of its own.
const apart = "CLAYER_BOOTS_APART"

// TestMain runs the tests in mount and PID namespaces: what they mount and leave running
// ends with them. As many machines' first process, this one reaps nobody else's children.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(apart) != "" {
		if os.Getenv(apart) != "" {
			if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
				fmt.Fprintln(os.Stderr, "mount /proc:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), apart+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(max(1, cmd.ProcessState.ExitCode()))
	}
	os.Exit(0)
}

// A player plays boots.
type player struct {
	t             *testing.T
	dir, template string
	exe           string
	script        string // the boot script
	internet      *hosttest.Internet

	mu     sync.Mutex
	counts map[string]int
}

func (p *player) count(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[what]++
}

func newPlayer(t *testing.T) *player {
	if os.Geteuid() != 0 {
		t.Skip("not root: no mount namespace and no tmpfs of limited size")
	}
	clitest.RequireSandbox(t)
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // a plain user comes in
			t.Fatal(err)
		}
	}
	p := &player{t: t, dir: dir, template: filepath.Join(dir, "template"), exe: filepath.Join(dir, "clayer"), counts: make(map[string]int)}
	if *flagExe == "" {
		clitest.Build(t, dir)
	} else if text, err := exec.Command("cp", *flagExe, p.exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if err := p.makeTemplate(); err != nil {
		t.Fatal(err)
	}
	if err := p.writeScript(); err != nil {
		t.Fatal(err)
	}
	p.internet = hosttest.New(t)
	return p
}

// TestBoots shows that a session starts whatever goes wrong, that what clayer says of it is
// true, and that the next one completes it.
func TestBoots(t *testing.T) {
	p := newPlayer(t)
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if *flagBoot != "" {
		files = []string{*flagBoot}
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b := new(Boot)
			if err := json.Unmarshal(data, b); err != nil {
				t.Fatal(err)
			}
			text, err := p.play(b)
			if err != nil {
				t.Error(err)
			}
			if err != nil || *flagBoot != "" {
				t.Log(text)
			}
		})
	}
	if *flagBoot == "" {
		p.playMany(t)
	}
}

func (p *player) playMany(t *testing.T) {
	seed, count := *flagSeed, *flagCount
	if seed == 0 {
		seed = rand.Uint64N(1_000_000_000) + 1
	}
	enough := time.Now().Add(24 * time.Hour)
	if count < 0 {
		count = rounds.Of(2, 10, 100)
		enough = time.Now().Add(2 * time.Minute) // on a busy machine, fewer
	}
	t.Logf("the seeds are %d to %d", seed, seed+uint64(count)-1)
	begun := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	next, failures := 0, 0
	for range *flagJobs {
		wg.Go(func() {
			for {
				mu.Lock()
				if next >= count || failures >= 3 || time.Now().After(enough) {
					mu.Unlock()
					return
				}
				b := draw(seed + uint64(next))
				next++
				mu.Unlock()
				text, err := p.play(b)
				if err == nil {
					continue
				}
				mu.Lock()
				failures++
				mu.Unlock()
				t.Logf("seed %d fails: %v\n%s", b.Seed, err, text)
				small, err := p.shrink(b, err)
				t.Errorf("seed %d, smaller: %v\n%s", b.Seed, err, small)
			}
		})
	}
	wg.Wait()
	if next < count && failures < 3 {
		t.Log("there was no time for more")
	}
	t.Logf("%d of %d boots in %.0f s: %v", next, count, time.Since(begun).Seconds(), p.counts)
}

// shrink removes what goes wrong, and steps, as long as the boot fails.
func (p *player) shrink(b *Boot, err error) (*Boot, error) {
	deadline := time.Now().Add(time.Minute)
	for again := true; again; {
		again = false
		for _, less := range simplified(b) {
			if time.Now().After(deadline) {
				return b, err
			}
			if _, e := p.play(less); e != nil {
				b, err, again = less, e, true
				break
			}
		}
	}
	return b, err
}

// simplified returns boots that have one thing less.
func simplified(b *Boot) (list []*Boot) {
	without := func(change func(*Boot)) {
		c := b.clone()
		change(c)
		if c.String() != b.String() {
			list = append(list, c)
		}
	}
	without(func(c *Boot) { c.Kill = nil })
	without(func(c *Boot) { c.Space, c.Inodes = 0, 0 })
	without(func(c *Boot) { c.Damage = nil })
	without(func(c *Boot) { c.Answers = nil })
	without(func(c *Boot) { c.Slow = false })
	without(func(c *Boot) { c.Booted = false })
	without(func(c *Boot) { c.InPlace = false })
	without(func(c *Boot) { c.Plain = false })
	without(func(c *Boot) { c.Store, c.Has = "", "nothing" })
	without(func(c *Boot) { c.Has = "nothing" })
	without(func(c *Boot) { c.Profile = "open" })
	for i := len(b.Layers) - 1; i >= 0; i-- {
		without(func(c *Boot) { c.Layers = c.Layers[:i] })
		without(func(c *Boot) { c.Layers[i].From = "" })
		for j := range b.Layers[i].Steps {
			without(func(c *Boot) {
				if l := &c.Layers[i]; len(l.Steps) > 1 {
					l.Steps = append(l.Steps[:j], l.Steps[j+1:]...)
				}
			})
			without(func(c *Boot) { c.Layers[i].Steps[j].KiB = 0 })
			without(func(c *Boot) { c.Layers[i].Steps[j].Edited = false })
		}
	}
	if len(b.Damage) > 1 {
		for i := range b.Damage {
			without(func(c *Boot) { c.Damage = append(c.Damage[:i], c.Damage[i+1:]...) })
		}
	}
	if len(b.Answers) > 1 {
		for i := range b.Answers {
			without(func(c *Boot) { c.Answers = append(c.Answers[:i], c.Answers[i+1:]...) })
		}
	}
	// What hangs needs the budget.
	if c := b.clone(); c.Budget != "" && !c.hangs() {
		c.Budget = ""
		list = append(list, c)
	}
	var possible []*Boot
	for _, c := range list {
		if len(c.Layers) > 0 && (!c.hangs() || c.Budget != "") {
			possible = append(possible, c)
		}
	}
	return possible
}

// hangs reports whether a boot would never end without a budget.
func (b *Boot) hangs() bool {
	for _, a := range b.Answers {
		if a == "hang" {
			return true
		}
	}
	for _, l := range b.Layers {
		for _, s := range l.Steps {
			if s.Kind == "hang" {
				return true
			}
		}
	}
	return false
}
