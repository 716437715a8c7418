package boots

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/clayer/clayer/internal/hosttest"
)

// A Boot is the start of a session on a machine that is not as it should be.
type Boot struct {
	Seed    uint64
	Profile string  // of internal/hosttest
	InPlace bool    `json:",omitempty"` // RUN runs on the root itself
	Plain   bool    `json:",omitempty"` // by a user without rights
	Layers  []Layer // of the project, in composition order

	Store   string   // where snapshots are: see stores
	Has     string   // what is there: nothing, earlier, now or both
	Damage  []Damage `json:",omitempty"`
	Answers []string `json:",omitempty"` // what its host answers first: see answer
	Slow    bool     `json:",omitempty"` // the network is

	Booted bool   `json:",omitempty"` // the machine had booted before, with the earlier layers
	Budget string `json:",omitempty"` // CLAYER_BUDGET
	Kill   *Kill  `json:",omitempty"`
	Space  int    `json:",omitempty"` // KiB that the disk has left; 0: enough
	Inodes int    `json:",omitempty"` // that it has left; 0: enough
}

// A Layer has steps, and a program that finds all that they make.
type Layer struct {
	Name  string
	From  string `json:",omitempty"`
	Steps []Step
}

// A Step makes a file.
type Step struct {
	Kind   string // run, copy or fetch; fail and hang are a RUN that does, until it is mended
	KiB    int    `json:",omitempty"` // of the file
	Edited bool   `json:",omitempty"` // it made another file in the earlier version of the layer
}

// A Damage is something that happened to a store.
type Damage struct {
	Kind string // gone, garbled, cut: a blob; all: every blob is gone
	At   int    // which blob, modulo their number
}

// A Kill ends processes by SIGKILL.
type Kill struct {
	Whom    string // clayer, children (of clayer), script (and all it has started)
	After   int    `json:",omitempty"` // milliseconds after the start
	Request int    `json:",omitempty"` // or at this request of the machine
}

func (b *Boot) String() string {
	text, err := json.MarshalIndent(b, "", "\t")
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (b *Boot) clone() *Boot {
	c := new(Boot)
	if err := json.Unmarshal([]byte(b.String()), c); err != nil {
		panic(err)
	}
	return c
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// draw draws a boot from a seed.
func draw(seed uint64) *Boot {
	rng := rand.New(rand.NewPCG(seed, 0))
	chance := func(n int) bool { return rng.IntN(n) == 0 }
	b := &Boot{
		Seed: seed, Profile: hosttest.Profiles[rng.IntN(len(hosttest.Profiles))].Name,
		InPlace: chance(3), Plain: chance(6), Booted: chance(3), Slow: chance(6),
		Store: pick(rng, "", "dir", "dir", "https", "https", "s3", "s3", "github"),
		Has:   pick(rng, "nothing", "earlier", "earlier", "now", "both"),
	}
	for i := range 1 + rng.IntN(3) {
		l := Layer{Name: []string{"base", "app", "extra"}[i]}
		if i > 0 && !chance(3) {
			l.From = b.Layers[rng.IntN(i)].Name
		}
		for range 1 + rng.IntN(3) {
			s := Step{Kind: pick(rng, "run", "run", "run", "copy", "copy", "fetch", "fail"), Edited: chance(3)}
			if s.Kind == "run" || s.Kind == "copy" {
				s.KiB = pick(rng, 0, 0, 20, 300)
			}
			l.Steps = append(l.Steps, s)
		}
		b.Layers = append(b.Layers, l)
	}
	for range rng.IntN(3) {
		b.Damage = append(b.Damage, Damage{pick(rng, "gone", "garbled", "cut", "all"), rng.IntN(8)})
	}
	for range rng.IntN(3) * rng.IntN(4) {
		b.Answers = append(b.Answers, pick(rng, "", "403", "404", "429", "500", "503", "html", "empty", "reset", "cut"))
	}
	switch rng.IntN(6) {
	case 0:
		b.Budget = "1ns"
	case 1:
		b.Budget = "1h"
	case 2: // what does not answer ends it
		b.Budget = "3s"
		b.Answers = append(b.Answers[:min(len(b.Answers), rng.IntN(4))], "hang")
	case 3:
		b.Budget = "3s"
		l := &b.Layers[rng.IntN(len(b.Layers))]
		l.Steps[rng.IntN(len(l.Steps))].Kind = "hang"
	}
	if chance(2) {
		b.Kill = &Kill{Whom: pick(rng, "clayer", "clayer", "children", "script")}
		if chance(2) {
			b.Kill.Request = 1 + rng.IntN(6)
		} else {
			b.Kill.After = rng.IntN(150)
		}
	}
	switch rng.IntN(6) {
	case 0:
		b.Space = 1 + rng.IntN(1500)
	case 1:
		b.Inodes = 1 + rng.IntN(120)
	}
	return b
}

// A version of the layers.
type version int

const (
	earlier version = iota // before the edits
	now                    // what the boot finds
	mended                 // what fails and hangs does no longer
)

// mark is what a file says that a step makes in a version.
func (s Step) mark(l string, i int, v version) string {
	n := "new"
	switch {
	case v == earlier && s.Edited:
		n = "old"
	case s.Kind == "fetch":
		return "a package of " + packages
	}
	return fmt.Sprintf("%s %d %s", l, i, n)
}

const packages = "files.pythonhosted.org"

// text returns a layer as a Containerfile in a version, and the files that it copies.
func (b *Boot) text(l Layer, v version) (text string, files map[string]string) {
	var t strings.Builder
	files = make(map[string]string)
	if l.From != "" {
		fmt.Fprintf(&t, "FROM %s\n", l.From)
	}
	fmt.Fprintf(&t, "ENV %s_MODE=%d\n", strings.ToUpper(l.Name), v)
	for i, s := range l.Steps {
		mark, dest := s.mark(l.Name, i, v), fmt.Sprintf("/opt/%s/%d", l.Name, i)
		switch {
		case s.Kind == "fetch" && !(v == earlier && s.Edited):
			fmt.Fprintf(&t, "FETCH --checksum=%s https://%s/packages/%d /opt/%s/\n", hosttest.SumOf(packages), packages, i, l.Name)
		case s.Kind == "fail" && v == now:
			fmt.Fprintf(&t, "RUN echo half > /opt/half; exit 7\n")
		case s.Kind == "hang" && v == now:
			fmt.Fprintf(&t, "RUN echo half > /opt/half; sleep 1000000\n")
		case s.Kind == "copy":
			name := fmt.Sprintf("%s.%d", l.Name, i)
			files[name] = mark + "\n" + strings.Repeat(fmt.Sprintf("%s %d\n", mark, b.Seed), s.KiB*1024/16)
			fmt.Fprintf(&t, "COPY %s %s\n", name, dest)
		default:
			fmt.Fprintf(&t, "RUN mkdir -p /opt/%s && echo %s > %s && head -c %dk /dev/urandom >> %s\n", l.Name, mark, dest, s.KiB, dest)
		}
	}
	// The program of the layer prints its version, if all is there that it needs.
	var p strings.Builder
	p.WriteString("#!/bin/sh\nset -e\n")
	if l.From != "" {
		fmt.Fprintf(&p, "/opt/%s/program >/dev/null\n", l.From)
	}
	for i, s := range l.Steps {
		fmt.Fprintf(&p, "read -r line </opt/%s/%d; [ \"$line\" = %q ]\n", l.Name, i, s.mark(l.Name, i, v))
	}
	fmt.Fprintf(&p, "echo %s works\n", l.Name)
	name := l.Name + ".program"
	files[name] = p.String()
	fmt.Fprintf(&t, "COPY --chmod=755 %s /opt/%s/program\n", name, l.Name)
	return t.String(), files
}

func fileOf(l Layer) string {
	if l.Name == "base" {
		return "Containerfile"
	}
	return "Containerfile." + l.Name
}
