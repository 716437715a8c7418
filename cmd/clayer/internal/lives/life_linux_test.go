package lives

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// A Life is a session on two machines.
type Life struct {
	Seed    uint64
	Root    bool     `json:",omitempty"` // with --root, instead of in a chroot
	InPlace bool     `json:",omitempty"` // RUN of the first machine runs in place
	Plain   bool     `json:",omitempty"` // by a user without rights
	Home    bool     `json:",omitempty"` // the second has another $HOME
	Own     []string `json:",omitempty"` // what both machines have of their own: commands
	First   []string `json:",omitempty"` // what the first one has besides
	Second  []string `json:",omitempty"` // and the second
	Recipe  []string // what the first solve has
	Actions []Action
}

// An Action is what somebody does. Every solve of the first machine is followed by one of
// the second.
type Action struct {
	Kind string
	Line string `json:",omitempty"` // an instruction that an edit adds, or a command
	At   int    `json:",omitempty"` // which line an edit is about, modulo their number
	With int    `json:",omitempty"` // of a swap: the other one. Of a kill: milliseconds
	Undo bool   `json:",omitempty"` // the second machine undoes it
}

// The kinds of actions.
const (
	solve   = "solve"   // again
	add     = "add"     // a line, and solve
	remove  = "remove"  // a line, and solve
	replace = "replace" // a line, and solve
	swap    = "swap"    // two lines, and solve
	fail    = "fail"    // a RUN fails at the end
	kill    = "kill"    // clayer while it solves
	undo    = "undo"    // on the first machine
	ours    = "ours"    // a command on the first machine
	theirs  = "theirs"  // a command on the second machine
	shimmed = "shimmed" // an install on the first machine through the shim, and solve
	fresh   = "fresh"   // the first machine ends, and one of its kind restores
)

func (l *Life) String() string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(l); err != nil {
		panic(err)
	}
	return b.String()
}

func (l *Life) clone() *Life {
	c := new(Life)
	if err := json.Unmarshal([]byte(l.String()), c); err != nil {
		panic(err)
	}
	return c
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

// lines are instructions; each has a probe.
var lines = slices.Concat(slices.Sorted(maps.Keys(others)), byHand("RUN "), []string{
	"RUN pip install httpx anyio", "RUN pip install six pandas", "RUN pip install idna==3.8", "RUN pip install idna httpx",
	"RUN apt-get update && apt-get install -y app psql", "RUN apt-get update && apt-get install -y --no-install-recommends postgres",
	"RUN npm install -g ts plugin",
})

// byHand are installs.
func byHand(before string) (list []string) {
	for manager, command := range map[string]string{"py": "pip install ", "deb": "apt-get install -y ", "npm": "npm install -g "} {
		for name := range required[manager] {
			if !strings.Contains(name, "==") {
				list = append(list, before+command+name)
			}
		}
	}
	slices.Sort(list)
	return list
}

// differences are what a machine may have of its own.
var differences = slices.Concat(byHand(""), byHand(""), []string{
	"useradd alice", "useradd zoe", "useradd -u 1005 mallory", "useradd -r svc", "useradd bob",
	"pip install idna==2.8", "pip install numpy==1.26",
	"d=/usr/lib/python3/dist-packages; mv /usr/local/lib/python3.11/dist-packages/* $d",
	"cp /usr/share/registry/deb/elf/libpq /usr/lib/libpq.so.5", "echo 'alias ll=ls' >> /etc/profile",
	"mkdir -p /opt/tool/conf", "mkdir -p /opt/tool && echo mine > /opt/tool/conf", "mkdir -p /etc/tool.conf", "mkdir -p /opt/tool", "ln -s /opt /srv/work",
})

// later are the commands of a session.
var later = append(byHand(""), "useradd alice", "useradd zoe", "useradd -r svc", "echo mine > /opt/mine", "mkdir -p /opt/tool")

// length is how many actions a life has.
const length = 12

// draw draws a life from a seed.
func draw(seed uint64) *Life {
	rng := rand.New(rand.NewPCG(seed, 0))
	l := &Life{Seed: seed, Root: rng.IntN(4) == 0, Home: rng.IntN(4) == 0, InPlace: rng.IntN(4) == 0, Plain: rng.IntN(6) == 0}
	some := func(n int) (list []string) {
		for range rng.IntN(n) {
			list = append(list, pick(rng, differences))
		}
		return list
	}
	l.Own, l.First, l.Second = some(3), some(3), some(4)
	for range 1 + rng.IntN(3) {
		l.Recipe = append(l.Recipe, pick(rng, lines))
	}
	l.Actions = append(l.Actions, Action{Kind: solve, Undo: rng.IntN(2) == 0})
	for len(l.Actions) < length {
		l.Actions = append(l.Actions, l.draw(rng))
	}
	return l
}

func (l *Life) draw(rng *rand.Rand) Action {
	a := Action{At: rng.IntN(8), Undo: rng.IntN(2) == 0}
	switch n := rng.IntN(20); {
	case n < 4:
		a.Kind, a.Line = add, pick(rng, lines)
	case n < 6:
		a.Kind = remove
	case n < 8:
		a.Kind, a.Line = replace, pick(rng, lines)
	case n < 9:
		a.Kind, a.With = swap, rng.IntN(8)
	case n < 10:
		a.Kind = fail
	case n < 11:
		a.Kind, a.With = kill, rng.IntN(150)
	case n < 12:
		a.Kind = undo
	case n < 14:
		a.Kind, a.Line = ours, pick(rng, later)
	case n < 16:
		a.Kind, a.Line = theirs, pick(rng, later)
	case n < 18:
		a.Kind, a.Line = shimmed, pick(rng, byHand(""))
	case n < 19:
		a.Kind = fresh
	default:
		a.Kind = solve
	}
	return a
}

// edit returns the lines after an action.
func (a Action) edit(lines []string) []string {
	lines = slices.Clone(lines)
	at := a.At % max(1, len(lines))
	switch {
	case a.Kind == add:
		return slices.Insert(lines, a.At%(len(lines)+1), a.Line)
	case len(lines) == 0:
	case a.Kind == remove:
		return slices.Delete(lines, at, at+1)
	case a.Kind == replace:
		lines[at] = a.Line
	case a.Kind == swap:
		with := a.With % len(lines)
		lines[at], lines[with] = lines[with], lines[at]
	}
	return lines
}

func containerfile(lines []string) string {
	return fmt.Sprintf("FROM machine\n%s\n", strings.Join(lines, "\n"))
}
