package storm

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
)

// aim is the tree that a command is to make; "" for one that leaves the root as
// it is.
func (p *play) aim(a Action) string {
	switch a.Command {
	case "solve":
		return recipeName(a.Recipe)
	case "undo":
		return base
	}
	return ""
}

// An effect is what a command was to do, and whether it says that it did.
type effect struct {
	aim string
	ok  bool
}

// account works out which trees the root may have after commands that ran at the
// same time.
func (p *play) account(effects []effect) {
	effects = slices.DeleteFunc(effects, func(e effect) bool { return e.aim == "" })
	failed := slices.ContainsFunc(effects, func(e effect) bool { return !e.ok })
	if failed && p.mode.Sandbox == "inplace" && slices.ContainsFunc(effects, func(e effect) bool { return e.aim != base }) {
		p.possible = nil // a RUN may have done anything
		return
	}
	worked := slices.ContainsFunc(effects, func(e effect) bool { return e.ok })
	if worked {
		p.possible = []string{}
	}
	for _, e := range effects {
		if p.possible != nil && !slices.Contains(p.possible, e.aim) {
			p.possible = append(p.possible, e.aim)
		}
	}
}

// checkCode checks whether a command may fail. refused says that something was
// planted in the state directory, which a command may refuse.
func (p *play) checkCode(name string, a Action, res result, refused bool) {
	must := p.mustWork(a, res)
	if must != "" && !res.ok() && !refused {
		p.t.Errorf("%s: exit code %d %s\n%s", name, res.code, must, res.output)
	}
}

// undisturbed reports whether nothing goes wrong while the action runs, but what
// no command should mind: damaged caches, and stores that do not answer.
func (a Action) undisturbed() bool { return a.Fault == nil && len(a.Answers) == 0 }

// mustWork says why a command has to succeed, if it has to.
func (p *play) mustWork(a Action, res result) string {
	f := a.Fault
	switch {
	case strings.HasPrefix(a.Command, "cache "):
		return "" // what is stored may be damaged, or gone
	case a.Command == "verify" && (p.cut || p.possible == nil):
		return ""
	case a.undisturbed():
		return "without a fault"
	case len(a.Answers) > 0 && !slices.Contains([]string{"verify", "undo", "status"}, a.Command) && p.fetches(a.Recipe):
		return ""
	case f == nil:
		return "with a server that it has nothing to do with"
	case a.Command == "undo" && (f.Kind == noBytes || f.Kind == noInodes):
		return "on a full disk, which undo needs nothing of"
	case a.solves() && f.Disk == cacheDisk && !p.one && !p.fetches(a.Recipe) && !unreadScratch.MatchString(res.output):
		return "for want of a cache"
	}
	return ""
}

// unreadScratch is the error of a disk that does not give a snapshot back: one of this
// solve, which is no miss, since nothing else has it; or one that it had verified, as a
// view is made of it.
var unreadScratch = regexp.MustCompile(`read .*/store/(tmp/(blob-\w+|clayer-blob)|blobs/sha256/\w+): input/output error`)

// checkBeside checks the command that ran at the same time.
func (p *play) checkBeside(name string, a Action, other result) {
	b := Action{Command: a.Beside, Recipe: 1 - a.Recipe}
	if p.isPlantedIn(p.state()) {
		return // which a command may refuse
	}
	if other.code != 0 && a.undisturbed() && p.mustWork(b, other) != "" && b.Command != "verify" {
		p.t.Errorf("%s: %s beside it: exit code %d\n%s", name, b, other.code, other.output)
	}
}

// onTheBrokenDisk checks what works while a disk is full or read-only.
func (p *play) onTheBrokenDisk(name string, a Action) {
	switch a.Fault.Kind {
	case noBytes, noInodes:
		res := p.command(Action{Command: "verify"}, nil)
		p.t.Logf("verify on the full disk: exit code %d\n    %s", res.code, indent(res.output))
		if res.code == 4 || res.code == -1 || res.code > 100 {
			p.t.Errorf("%s: verify on the full disk: exit code %d\n%s", name, res.code, res.output)
			return
		}
		p.cut = false
		p.expect(name+", after verify on the full disk", p.possible...)
	case readOnly:
		if p.isPlantedIn(p.state()) { // what could not be removed from a read-only disk
			return
		}
		p.mustSucceed(p.command(Action{Command: "status"}, nil), name+", status while read-only")
	}
}

func (p *play) mustSucceed(res result, name string) {
	p.t.Helper()
	if !res.ok() {
		p.t.Errorf("%s: exit code %d\n%s", name, res.code, res.output)
	}
}

var crashed = regexp.MustCompile(`(?m)^(panic: |fatal error: |goroutine \d+ \[|unexpected fault address)`)

// checkResult checks what holds after every command.
func (p *play) checkResult(a Action, fault *armed, res result) {
	p.t.Helper()
	if crashed.MatchString(res.output) {
		p.t.Errorf("%s: it crashed\n%s", a, res.output)
	}
	signalled := fault.hit != "" && strings.HasPrefix(fault.Kind, "SIG") || p.killed
	switch res.code {
	case 0, 1, 3, 4:
	case 2:
		if a.Command != "cache rm" { // of a layer that is not there
			p.t.Errorf("%s: exit code 2\n%s", a, res.output)
		}
	case 130:
		if !signalled {
			p.t.Errorf("%s: exit code 130 without a signal\n%s", a, res.output)
		}
	case -1:
		if !signalled { // before it can catch them, any signal kills
			p.t.Errorf("%s: it was killed\n%s", a, res.output)
		}
	default:
		p.t.Errorf("%s: exit code %d\n%s", a, res.code, res.output)
	}
}

// nothingRuns checks that no process is left, and no mount that was not there.
func (p *play) nothingRuns(name string) {
	p.t.Helper()
	if left := waitForNone(survivors); len(left) > 0 {
		p.t.Errorf("%s: processes are left: %q", name, left)
	}
	left := waitForNone(func() []string {
		return slices.DeleteFunc(mounts(p.t), func(m string) bool { return slices.Contains(p.mounts, m) })
	})
	if len(left) > 0 {
		p.t.Errorf("%s: mounts are left: %q", name, left)
	}
}

// waitForNone asks until there is nothing left, or for very long.
func waitForNone(what func() []string) []string {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if left := what(); len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// describe is the tree as it is, without clayer's state.
func (p *play) describe() []string {
	p.t.Helper()
	lines, err := describe(p.place(), func(path string) bool { return path == "tree/var/lib/clayer" })
	if err != nil {
		p.t.Fatal(err)
	}
	// Making the state directory there changes its time, which is set back after
	// that. A fault between the two loses it for good.
	for i, l := range lines {
		if strings.HasPrefix(l, `"tree/var/lib" `) {
			fields := strings.Fields(l)
			fields[4] = "any time"
			lines[i] = strings.Join(fields, " ")
		}
	}
	return lines
}

// expect checks that the root has one of the trees, and remembers which.
func (p *play) expect(when string, names ...string) {
	p.t.Helper()
	if names == nil {
		return
	}
	got := p.describe()
	for _, name := range names {
		if slices.Equal(got, p.trees[name]) {
			p.possible = []string{name}
			return
		}
	}
	diffs := ""
	for _, name := range names {
		diffs += fmt.Sprintf("\n-%s +root\n%s", name, difference(p.trees[name], got))
	}
	p.t.Errorf("%s: the root is none of %q%s", when, names, diffs)
}

func difference(want, got []string) string {
	d := cmp.Diff(want, got)
	return d[:min(len(d), 6000)]
}

// describeOutside is all that no command has a reason to touch.
func (p *play) describeOutside() []string {
	p.t.Helper()
	var all []string
	for _, dir := range []string{"outside", "ctx0", "ctx1", "home"} {
		lines, err := describe(p.path(dir), nil)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, l := range lines {
			all = append(all, dir+": "+l)
		}
	}
	return all
}

func (p *play) expectOutside(when string) {
	p.t.Helper()
	if now := p.describeOutside(); !slices.Equal(now, p.outside) {
		p.t.Errorf("%s: what lies outside was touched\n%s", when, difference(p.outside, now))
	}
}

// knownInCache are the files of a cache directory.
var knownInCache = regexp.MustCompile(`^(store(/(oci-layout|index\.json(\.damaged-[0-9T.]+)?|lock|tmp|written(/.*)?|blobs(/sha256(/[0-9a-f]{64})?)?|keys(/lock|/[0-9a-f]{2}(/[0-9a-f]{64}(\.[2-4])?\.json)?)?))?` +
	`|downloads(/(sha256|url)(/[0-9a-f]{64})?)?|tmp|run|github(/.*)?|stores(/.*)?|mounts)$`)

// ofRun are files that a run may leave when it is killed: its overlay is in the
// system's directory for temporary files where there is no cache directory.
var ofRun = regexp.MustCompile(`^(run/\.clock-\d+|clayer-run-\d+(/.*)?)$`)

// killedRun reports whether a run of the round was killed.
func (p *play) killedRun() bool {
	return slices.ContainsFunc(p.round.Actions, func(a Action) bool {
		return (a.Command == "run" || a.Beside == "run") && a.Fault != nil && a.Fault.Kind == signalKill
	})
}

// expectNothingLeft checks that the round left no file where none should be.
func (p *play) expectNothingLeft() {
	p.t.Helper()
	walk := func(dir string, allowed func(rel string) bool) {
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if rel, _ := filepath.Rel(dir, path); rel != "." && !allowed(rel) && !p.isPlanted(path) {
				p.t.Errorf("%s is left", strings.TrimPrefix(path, p.dir))
			}
			return err
		})
		if err != nil {
			p.t.Error(err)
		}
	}
	run := p.killedRun()
	walk(p.path("tmp"), func(rel string) bool { return run && ofRun.MatchString(rel) })
	walk(p.cache(), func(rel string) bool { return knownInCache.MatchString(rel) || run && ofRun.MatchString(rel) })
	walk(filepath.Join(p.tree(), "var"), func(rel string) bool { return rel == "lib" })
}
