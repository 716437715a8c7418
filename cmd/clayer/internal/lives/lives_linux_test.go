package lives

import (
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/clayer/clayer/cmd/clayer/internal/clitest"
	"github.com/clayer/clayer/internal/rounds"
)

// usualSeed is where usual runs start, so that a failure is of the change that is tested.
const usualSeed = 1

var (
	flagSeed  = flag.Uint64("lives.seed", usualSeed, "the seed of the first life; 0 draws one")
	flagCount = flag.Int("lives.count", -1, "how many lives, beside those in testdata; -1 is as many as the tier has")
	flagLife  = flag.String("lives.life", "", "a file with the only life to play, as a failure prints it")
	flagExe   = flag.String("lives.exe", "", "the program; none builds it")
	flagJobs  = flag.Int("lives.jobs", 3, "how many lives at a time")
)

func newPlayer(t *testing.T) *player {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox-static is not installed")
	}
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := &player{dir: dir, template: filepath.Join(dir, "template"), exe: filepath.Join(dir, "clayer")}
	if *flagExe == "" {
		clitest.Build(t, dir)
	} else if text, err := exec.Command("cp", *flagExe, p.exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if err := os.Mkdir(p.template, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := makeTemplate(p.template, busybox); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLives shows that what one machine built works on another one, or is built there, and
// that both machines keep what is theirs.
func TestLives(t *testing.T) {
	p := newPlayer(t)
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if *flagLife != "" {
		files = []string{*flagLife}
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			l := new(Life)
			if err := json.Unmarshal(data, l); err != nil {
				t.Fatal(err)
			}
			if *flagLife != "" {
				p.show = t.Logf
			}
			if err := p.play(l); err != nil {
				t.Error(err)
			}
		})
	}
	if *flagLife == "" {
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
		enough = time.Now().Add(4 * time.Minute) // on a busy machine, fewer
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
				l := draw(seed + uint64(next))
				next++
				mu.Unlock()
				err := p.play(l)
				if err == nil {
					continue
				}
				mu.Lock()
				failures++
				mu.Unlock()
				t.Logf("seed %d fails: %v", l.Seed, err)
				small, err := p.shrink(l, err)
				t.Errorf("seed %d: %v\n%s", l.Seed, err, small)
			}
		})
	}
	wg.Wait()
	if next < count && failures < 3 {
		t.Log("there was no time for more")
	}
	t.Logf("%d of %d lives in %.0f s: %d actions; %d steps restored, %d ran; %d recipes fail on a machine of that kind, %d times a RUN in place had replaced what cannot come back",
		next, count, time.Since(begun).Seconds(), p.actions.Load(), p.restored.Load(), p.ran.Load(), p.refused.Load(), p.lost.Load())
}

// shrink removes actions, lines and differences as long as the life fails.
func (p *player) shrink(l *Life, err error) (*Life, error) {
	deadline := time.Now().Add(time.Minute)
	for again := true; again; {
		again = false
		for _, less := range simplified(l) {
			if time.Now().After(deadline) {
				return l, err
			}
			if e := p.play(less); e != nil {
				l, err, again = less, e, true
				break
			}
		}
	}
	return l, err
}

// simplified returns lives that have one thing less.
func simplified(l *Life) (list []*Life) {
	without := func(change func(*Life)) {
		c := l.clone()
		change(c)
		if c.String() != l.String() {
			list = append(list, c)
		}
	}
	for i := len(l.Actions) - 1; i >= 0; i-- {
		without(func(c *Life) { c.Actions = append(c.Actions[:i], c.Actions[i+1:]...) })
	}
	for _, of := range []func(*Life) *[]string{
		func(l *Life) *[]string { return &l.Recipe }, func(l *Life) *[]string { return &l.Own },
		func(l *Life) *[]string { return &l.First }, func(l *Life) *[]string { return &l.Second },
	} {
		for i := range *of(l) {
			without(func(c *Life) { *of(c) = append((*of(c))[:i], (*of(c))[i+1:]...) })
		}
	}
	without(func(c *Life) { c.Root = false })
	without(func(c *Life) { c.InPlace = false })
	without(func(c *Life) { c.Plain = false })
	without(func(c *Life) { c.Home = false })
	for i := range l.Actions {
		without(func(c *Life) { c.Actions[i].Undo = false })
	}
	return list
}
