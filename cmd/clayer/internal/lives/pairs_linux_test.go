package lives

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/rounds"
)

var (
	flagPair  = flag.Int("lives.pair", -1, "the only pair to play")
	flagPairs = flag.Int("lives.pairs", -1, "how many pairs; -1 is as many as the tier has")
)

const (
	allPairs   = 60
	pairLayers = 12
)

// A Pair is two machines, and layers that are built on the first of them and solved on the
// second, each by itself.
type Pair struct {
	Life
	Number int
	Kind   string
	Layers [][]string

	checked bool // that a snapshot without needs is restored
}

// The kinds of pairs.
const (
	alike      = "alike"     // the second machine is one of the first one's kind
	elsewhere  = "elsewhere" // of another platform: its keys are others
	unlike     = "unlike"    // it has the same keys
	mostDiffer = 5           // how much a machine has of its own
)

func drawPair(n int) *Pair {
	rng := rand.New(rand.NewPCG(uint64(n), 60))
	p := &Pair{Number: n, Kind: unlike}
	switch n % 10 {
	case 7:
		p.Kind = alike
	case 9:
		p.Kind = elsewhere
	}
	some := func() (list []string) {
		for range rng.IntN(mostDiffer) {
			list = append(list, pick(rng, differences))
		}
		return list
	}
	p.Own = some()
	if p.Kind == unlike {
		p.First, p.Second, p.Home = some(), some(), rng.IntN(4) == 0
	}
	if p.Kind == elsewhere {
		p.Second = []string{"echo VERSION_ID=2 >> /etc/os-release"}
	}
	for range pairLayers {
		var layer []string
		for range 1 + rng.IntN(3) {
			layer = append(layer, pick(rng, lines))
		}
		p.Layers = append(p.Layers, layer)
	}
	return p
}

// A score counts layers, of pairs with equal keys.
type score struct {
	mu                                  sync.Mutex
	layers, restored, rebuilt, needless int
	notRestored                         int            // on a machine of the kind that built, and of another platform what was
	reasons                             map[string]int // why layers were built again
	found                               []string       // those that were needless
}

func (s *score) add(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// TestPairs shows that a snapshot is restored where that works, and nowhere else.
func TestPairs(t *testing.T) {
	p := newPlayer(t)
	var numbers []int
	count := *flagPairs
	if count < 0 {
		count = rounds.Of(2, 6, 20)
	}
	for n := range count {
		numbers = append(numbers, n*7%allPairs) // of every kind
	}
	if *flagPair >= 0 {
		numbers, p.show = []int{*flagPair}, t.Logf
	}
	s := &score{reasons: make(map[string]int)}
	var wg sync.WaitGroup
	free := make(chan struct{}, *flagJobs)
	for _, n := range numbers {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			pair := drawPair(n)
			if err := p.playPair(pair, s); err != nil {
				t.Errorf("pair %d (-lives.pair=%d plays it alone), %s: %v\n%s", n, n, pair.Kind, err, &pair.Life)
			}
		})
	}
	wg.Wait()
	for _, text := range slices.Sorted(maps.Keys(s.reasons)) {
		t.Logf("%4d built again: %s", s.reasons[text], text)
	}
	for _, text := range s.found {
		t.Log(text)
	}
	t.Logf("%d pairs: of %d layers with equal keys %d are restored and %d built again, %d of these needlessly (%.1f %%)",
		len(numbers), s.layers, s.restored, s.rebuilt, s.needless, 100*float64(s.needless)/float64(max(1, s.layers)))
	if s.notRestored > 0 {
		t.Errorf("%d layers are not restored on a machine of the kind that built them", s.notRestored)
	}
	if s.needless > 1 && s.needless*50 > s.layers { // one of a few pairs says nothing
		t.Error("more than 2 % are built again needlessly")
	}
}

func (p *player) playPair(pair *Pair, s *score) error {
	g, err := p.ground(&pair.Life)
	defer func() { os.RemoveAll(g.dir) }()
	if err != nil {
		return err
	}
	for _, layer := range pair.Layers {
		if err := g.playLayer(pair, layer, s); err != nil {
			return fmt.Errorf("%q: %w", layer, err)
		}
	}
	return nil
}

var why = regexp.MustCompile(`cached, but needs .*`)

func (g *ground) playLayer(pair *Pair, layer []string, s *score) error {
	if err := g.write(layer); err != nil {
		return err
	}
	for _, d := range []string{"work/first", "work/second", "work/store", "work/bare"} {
		if err := g.empty(d); err != nil {
			return err
		}
	}
	switch err := g.first.solve(layer); {
	case errors.Is(err, errRefused):
		return g.first.undo()
	case err != nil:
		return err
	}
	if err := g.first.undo(); err != nil {
		return err
	}
	if err := os.CopyFS(g.path("work/bare"), os.DirFS(g.path("work/store"))); err != nil {
		return err
	}
	plan, err := g.second.run("plan")
	if err != nil {
		return err
	}
	err = g.second.solve(layer)
	refused := errors.Is(err, errRefused)
	if err != nil && !refused {
		return err
	}
	ran := g.second.ranLast
	if err := g.second.undo(); err != nil {
		return err
	}
	if pair.Kind == elsewhere {
		return nil
	}
	s.add(func() { s.layers++ })
	if ran == 0 && !refused {
		s.add(func() { s.restored++ })
		if pair.checked {
			return nil
		}
		pair.checked = true
		if works, err := g.worksBare(layer); err != nil || !works {
			return fmt.Errorf("it was restored, and the same without needs is not, or does not work: %w", err)
		}
		return nil
	}
	reason := why.FindString(plan)
	if reason == "" {
		reason = "what it installs was on the first machine already, or it fails on this one"
	}
	s.add(func() { s.rebuilt++; s.reasons[reason]++ })
	works, err := g.worksBare(layer)
	if err != nil || !works {
		return err
	}
	s.add(func() {
		s.needless++
		s.found = append(s.found, fmt.Sprintf("pair %d, needless: %q: %s", pair.Number, layer, reason))
		if pair.Kind == alike {
			s.notRestored++
		}
	})
	return nil
}

// worksBare reports whether what the first machine built works on the second when it is
// restored without a look at its needs, and damages nothing there.
func (g *ground) worksBare(layer []string) (bool, error) {
	err := filepath.WalkDir(g.path("work/bare/keys"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".json" { // keys/lock is empty
			return err
		}
		return withoutNeeds(path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // nothing was stored
	}
	if err != nil {
		return false, err
	}
	m, err := g.machine("trial", g.second.home, g.second.own)
	defer os.RemoveAll(m.root())
	if err != nil {
		return false, err
	}
	err = errors.Join(g.empty("work/store"), g.empty("work/trial"), os.CopyFS(g.path("work/store"), os.DirFS(g.path("work/bare"))))
	if err != nil {
		return false, err
	}
	err = m.solve(layer)
	return err == nil && m.ranLast == 0, nil
}

// withoutNeeds removes the needs of a descriptor, but those without which a database is not
// merged.
func withoutNeeds(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	var needs []snapshot.Need
	if fields["needs"] == nil {
		return nil
	}
	if err := json.Unmarshal(fields["needs"], &needs); err != nil {
		return err
	}
	needs = slices.DeleteFunc(needs, func(n snapshot.Need) bool {
		return n.Kind != snapshot.NeedContent || len(n.Set)+len(n.Removed) == 0
	})
	if fields["needs"], err = json.Marshal(needs); err != nil {
		return err
	}
	delete(fields, "seal")
	if data, err = json.Marshal(fields); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
