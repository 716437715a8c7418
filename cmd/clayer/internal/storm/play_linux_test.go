package storm

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A play is a round as it takes place.
type play struct {
	t *testing.T
	*ground
	round *Round
	exe   string
	www   *server
	far   far

	trees    map[string][]string // what base and recipes give, by name
	calls    map[string]int      // how many calls commands make
	possible []string            // the names of the trees that the root may have; nil: any
	cut      bool                // a command was cut off, and none has recovered the root since
	killed   bool                // all processes were killed in this action
	mounts   []string            // that are there when no command runs
	planted  map[string]bool     // paths of caches that damage put there
	outside  []string            // what lies outside, as it was
}

const base = "base"

func recipeName(i int) string { return fmt.Sprint("recipe ", i) }

// run plays the whole round.
func (p *play) run() {
	p.reference()
	if p.t.Failed() {
		return
	}
	p.possible, p.mounts = []string{base}, mounts(p.t)
	p.outside = p.describeOutside()
	for i, a := range p.round.Actions {
		p.act(fmt.Sprintf("action %d, %s", i, a), a)
		if p.t.Failed() {
			return
		}
	}
	p.close()
}

// reference solves the recipes without faults, on a ground of their own.
func (p *play) reference() {
	mine, stores := p.ground, p.far
	defer func() { p.ground, p.far = mine, stores }()
	plain := *p.round
	plain.OneDisk, plain.SmallCache = false, false
	if plain.Mode.Sandbox == "inplace" {
		plain.Mode.Sandbox = "overlay" // both give the same
	}
	var err error
	if p.ground, err = newGround(p.path("reference"), &plain); err != nil {
		p.t.Fatal(err)
	}
	p.far, p.mounts = far{}, mounts(p.t)
	p.trees, p.calls = map[string][]string{base: p.describe()}, make(map[string]int)
	for i := range p.round.Recipes {
		res := p.command(Action{Command: "solve", Recipe: i}, nil)
		p.mustSucceed(res, "reference")
		p.trees[recipeName(i)], p.calls["solve"] = p.describe(), res.calls
		if i == 0 {
			res := p.command(Action{Command: "undo"}, nil)
			p.mustSucceed(res, "reference")
			p.calls["undo"] = res.calls
			p.expect("after undo in the reference", base)
		}
	}
	for _, disk := range []string{rootDisk, cacheDisk} {
		if err := unix.Unmount(p.disk(disk), unix.MNT_DETACH); err != nil {
			p.t.Fatal(err)
		}
	}
}

// act runs an action and checks what it did.
func (p *play) act(name string, a Action) {
	p.killed = false
	for _, d := range a.Damage {
		p.damage(d)
	}
	p.www.next(a.Answers)
	p.far.next(a.FarAnswers)
	fault := &armed{g: p.ground}
	if a.Fault != nil {
		fault.Fault = a.Fault
		if a.Fault.Call == "" {
			fault.at = 1 + int(a.Fault.When*float64(p.expectedCalls(a)))
		}
	}
	var beside *command
	main := p.start(a, fault)
	if a.Beside != "" {
		beside = p.start(Action{Command: a.Beside, Recipe: 1 - a.Recipe}, nil)
	}
	res := main.wait()
	p.t.Logf("%s\n    exit code %d, %d calls, %v; fault at: %s\n    %s", name, res.code, res.calls, res.took.Round(time.Millisecond), res.hit, indent(res.output))
	var other result
	if beside != nil {
		other = beside.wait()
		p.t.Logf("beside it: %s: exit code %d\n    %s", a.Beside, other.code, indent(other.output))
		p.checkBeside(name, a, other)
	}
	p.nothingRuns(name)
	p.www.next(nil)
	p.far.next(nil)
	refused := p.unplantState()

	lasting := res.hit != "" && a.Fault.lasting()
	p.checkCode(name, a, res, refused)
	effects := []effect{{p.aim(a), res.ok()}}
	if beside != nil {
		effects = append(effects, effect{p.aim(Action{Command: a.Beside, Recipe: 1 - a.Recipe}), other.ok()})
	}
	p.account(effects)
	p.cut = p.cut && !(res.ok() && a.changes()) || a.changes() && (res.code == -1 || lasting && !res.ok()) || p.killed
	if lasting {
		p.onTheBrokenDisk(name, a)
		p.heal()
		p.unplantState()
	}
	if p.cut && a.Settle {
		p.settle(name)
	}
	if !p.cut {
		p.expect(name, p.possible...)
	}
	p.expectOutside(name)
}

// settle runs a next command after one that was cut off.
func (p *play) settle(name string) {
	res := p.command(Action{Command: "verify"}, nil)
	p.t.Logf("verify: exit code %d\n    %s", res.code, indent(res.output))
	if res.code > 1 || res.code < 0 || res.code == 1 && p.possible != nil {
		p.t.Errorf("%s: verify after it: exit code %d\n%s", name, res.code, res.output)
	}
	p.cut = false
}

// close checks that all is well once the faults are gone.
func (p *play) close() {
	p.heal()
	last := len(p.round.Recipes) - 1
	res := p.command(Action{Command: "solve", Recipe: last}, nil)
	p.t.Logf("the last solve\n    %s", indent(res.output))
	p.mustSucceed(res, "the last solve")
	p.expect("the last solve", recipeName(last))
	p.mustSucceed(p.command(Action{Command: "verify"}, nil), "the last verify")
	// What was cut off leaves temporary files to the next command of its kind.
	// Where something else is in the way of a store or of views, these say so.
	res = p.command(Action{Command: "run", Recipe: last}, nil)
	if !p.isPlanted(filepath.Join(p.cache(), "run")) {
		p.mustSucceed(res, "the last run")
	}
	res = p.command(Action{Command: "cache prune"}, nil)
	if len(p.planted) == 0 {
		p.mustSucceed(res, "the last cache prune")
	}
	res = p.command(Action{Command: "build", Recipe: last}, nil)
	p.mustSucceed(res, "the last build")
	p.expect("the last build", recipeName(last))
	res = p.command(Action{Command: "undo"}, nil)
	p.t.Logf("the last undo\n    %s", indent(res.output))
	p.mustSucceed(res, "the last undo")
	p.expect("the last undo", base)
	p.expectNothingLeft()
	p.expectOutside("the end")
}

func (p *play) heal() {
	for _, disk := range []string{rootDisk, cacheDisk} {
		if err := p.remount(disk, false); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := p.free(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *play) expectedCalls(a Action) int {
	if n, ok := p.calls[a.Command]; ok {
		return n
	}
	switch { // about what they make where there is little to do
	case a.Command == "verify":
		return 60
	case strings.HasPrefix(a.Command, "cache "):
		return 50
	case a.Command == "run":
		return 1500
	}
	return 150
}

// fetches reports whether a recipe needs the server.
func (p *play) fetches(recipe int) bool {
	return slices.ContainsFunc(p.round.Recipes[recipe].Lines, func(l string) bool { return strings.HasPrefix(l, "FETCH") })
}

func (p *play) plant(path string) {
	if p.planted == nil {
		p.planted = make(map[string]bool)
	}
	p.planted[path] = true
}

func (p *play) isPlanted(path string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(p.planted)), func(dir string) bool { return isBelow(path, dir) })
}

// isPlantedIn reports whether damage put something into dir.
func (p *play) isPlantedIn(dir string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(p.planted)), func(path string) bool { return isBelow(path, dir) })
}

func indent(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") }
