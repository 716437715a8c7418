package storm

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// A Round is all that happens in one round. It has everything that is random.
type Round struct {
	Seed    uint64
	Mode    Mode
	OneDisk bool `json:",omitempty"` // the cache is on the disk of the root

	// SmallCache bounds the local store to less than what most recipes make.
	SmallCache bool `json:",omitempty"`

	Store   string `json:",omitempty"` // a store after the local one: "dir", "oci" or "github"
	Recipes []Recipe
	Actions []Action
}

// A Mode is a way to change a root.
type Mode struct {
	Dest    bool   `json:",omitempty"` // --dest in place of --root
	Sandbox string // of --sandbox
	User    bool   `json:",omitempty"` // a plain user runs the commands
}

// An Action is a command, with what goes wrong before and meanwhile.
type Action struct {
	Command    string
	Recipe     int      `json:",omitempty"`
	Damage     []Damage `json:",omitempty"` // before
	Answers    []string `json:",omitempty"` // of the server of FETCH, request by request; then it works again
	FarAnswers []string `json:",omitempty"` // of the server of the store, likewise
	Fault      *Fault   `json:",omitempty"` // meanwhile
	Beside     string   `json:",omitempty"` // a command of the other recipe that runs at the same time
	Settle     bool     `json:",omitempty"` // verify follows if it was cut off
}

// Damage is what somebody does to files that clayer trusts.
type Damage struct {
	Where string // local, far or state
	What  string // the file: a key of damages
	How   string
	Which int `json:",omitempty"` // of several files
}

// A Fault happens while a command runs.
type Fault struct {
	Kind string
	// When is the part of the command's system calls that come before: 0 to 1.
	When float64 `json:",omitempty"`
	// Call names an instant that stays the same as clayer changes: the first call
	// of a name on a path with a text in it, "renameat state.json".
	Call  string `json:",omitempty"`
	Disk  string `json:",omitempty"` // root or cache
	Errno string `json:",omitempty"`
	Lasts bool   `json:",omitempty"` // not this call alone
	Whom  string `json:",omitempty"` // clayer, its process group, or all processes
	Leave int    `json:",omitempty"` // pages or inodes that are still free on a full disk
}

// The kinds of faults.
const (
	signalKill  = "SIGKILL"
	signalTerm  = "SIGTERM"
	signalInt   = "SIGINT"
	signalTwice = "SIGINT twice"
	callFails   = "call fails"
	noBytes     = "no bytes left"
	noInodes    = "no inodes left"
	readOnly    = "read-only"
)

// The disks, and whom a signal reaches.
const (
	rootDisk  = "root"
	cacheDisk = "cache"

	clayerAlone = "clayer"
	group       = "group"
	everything  = "everything"
)

func (r *Round) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s", r.Seed, r.Mode)
	if r.OneDisk {
		b.WriteString(", one disk")
	}
	if r.Store != "" {
		fmt.Fprintf(&b, ", store %s", r.Store)
	}
	for i, rec := range r.Recipes {
		fmt.Fprintf(&b, "\n  recipe %d\n    %s", i, strings.ReplaceAll(strings.TrimSpace(rec.Text()), "\n", "\n    "))
	}
	for i, a := range r.Actions {
		fmt.Fprintf(&b, "\n  action %d: %s", i, a)
	}
	return b.String()
}

func (m Mode) String() string {
	s := "root"
	if m.User {
		s = "user"
	}
	if m.Dest {
		return s + ", --dest, " + m.Sandbox
	}
	return s + ", --root, " + m.Sandbox
}

func (a Action) String() string {
	var b strings.Builder
	for _, d := range a.Damage {
		fmt.Fprintf(&b, "%s: %s, %s; ", d.Where, d.What, d.How)
	}
	b.WriteString(a.Command)
	if a.solves() || a.Command == "plan" {
		fmt.Fprintf(&b, " %d", a.Recipe)
	}
	if a.Beside != "" {
		fmt.Fprintf(&b, " beside %s %d", a.Beside, 1-a.Recipe)
	}
	if len(a.Answers) > 0 {
		fmt.Fprintf(&b, ", the server answers %q", a.Answers)
	}
	if len(a.FarAnswers) > 0 {
		fmt.Fprintf(&b, ", the store answers %q", a.FarAnswers)
	}
	if a.Fault != nil {
		fmt.Fprintf(&b, ", %s", a.Fault)
	}
	return b.String()
}

func (f *Fault) String() string {
	data, _ := json.Marshal(f)
	return string(data)
}

// draw makes the round of a seed.
func draw(seed uint64) *Round {
	rng := rand.New(rand.NewPCG(seed, 0x5707))
	r := &Round{
		Seed: seed,
		Mode: pick(rng,
			Mode{Sandbox: "overlay"}, Mode{Sandbox: "overlay"}, Mode{Sandbox: "overlay"},
			Mode{Sandbox: "inplace"}, Mode{Sandbox: "inplace"},
			Mode{Dest: true, Sandbox: "overlay"},
			Mode{User: true, Sandbox: "overlay"},
			Mode{User: true, Dest: true, Sandbox: "overlay"}),
		OneDisk:    rng.IntN(4) == 0,
		SmallCache: rng.IntN(6) == 0,
		Store:      pick(rng, "", "", "", "dir", "github", "oci"),
	}
	first := drawRecipe(rng, r.Mode)
	r.Recipes = []Recipe{first, first.edited(rng, r.Mode)}
	for range 2 + rng.IntN(4) {
		r.Actions = append(r.Actions, drawAction(rng, r))
	}
	return r
}

func drawAction(rng *rand.Rand, r *Round) Action {
	a := Action{
		Command: pick(rng, "solve", "solve", "solve", "solve", "solve", "solve", "undo", "undo", "verify", "plan", "run", "status", "cache rm", "cache prune"),
		Recipe:  rng.IntN(2),
		Settle:  rng.IntN(2) == 0,
	}
	if r.Store != "" && rng.IntN(6) == 0 {
		a.Command = pick(rng, "cache push", "cache pull")
	}
	if rng.IntN(10) < 7 {
		a.Fault = drawFault(rng)
	}
	if rng.IntN(3) == 0 {
		for range 1 + rng.IntN(2) {
			a.Damage = append(a.Damage, drawDamage(rng, r))
		}
	}
	if rng.IntN(4) == 0 {
		for range 1 + rng.IntN(3) {
			a.Answers = append(a.Answers, pick(rng, answers...))
		}
	}
	if r.Store != "" && r.Store != "dir" && rng.IntN(2) == 0 {
		for range 1 + rng.IntN(3) {
			a.FarAnswers = append(a.FarAnswers, pick(rng, answers...))
		}
	}
	if rng.IntN(8) == 0 {
		a.Beside = pick(rng, "solve", "undo", "verify", "plan", "cache prune")
	}
	return a
}

func drawFault(rng *rand.Rand) *Fault {
	f := &Fault{When: float64(rng.IntN(1000)) / 1000}
	f.Kind = pick(rng, signalKill, signalKill, signalKill, signalTerm, signalInt, signalTwice,
		callFails, callFails, callFails, noBytes, noBytes, noInodes, noInodes, readOnly)
	switch f.Kind {
	case signalKill, signalTerm, signalInt, signalTwice:
		f.Whom = pick(rng, clayerAlone, clayerAlone, group, everything)
	case callFails:
		f.Disk = pick(rng, rootDisk, rootDisk, cacheDisk)
		f.Errno = pick(rng, "EIO", "EIO", "EIO", "ENOSPC", "EDQUOT", "EMFILE", "EROFS")
		f.Lasts = f.Errno == "EROFS" || rng.IntN(3) == 0
	case noBytes, noInodes:
		f.Disk = pick(rng, rootDisk, rootDisk, cacheDisk)
		if rng.IntN(2) == 0 {
			f.Leave = rng.IntN(12)
		}
	case readOnly:
		f.Disk = pick(rng, rootDisk, rootDisk, cacheDisk)
	}
	return f
}

func (a Action) solves() bool { return a.Command == "solve" }

// changes reports whether the command is to change the root.
func (a Action) changes() bool { return a.solves() || a.Command == "undo" }

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }
