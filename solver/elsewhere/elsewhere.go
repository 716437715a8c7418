// Package elsewhere says what a solve would do on another machine, as far as that can be
// known from here: which steps would be restored there, and on what conditions.
//
// A plan for another platform has its keys, and what the stores have under these; what the
// snapshots need, and which variables are set there, only that machine can say. So nothing is
// called cached: a step is restorable, on conditions that are listed.
package elsewhere

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/lazyregexp"
	"github.com/clayer/clayer/solver"
)

// A State says what a solve on the other machine would do for a step.
type State string

// The states of a step.
const (
	Restorable State = "restorable" // a store that the machine may reach has its snapshot
	ToRun      State = "to run"
	Variables  State = "variables only" // it sets variables, which takes no work
)

// A Report says what a solve on another machine would do.
type Report struct {
	Version  int      `json:"version"`
	Platform string   `json:"platform"`
	Stores   []string `json:"stores"` // that the machine may reach: all but the one of this machine
	Layers   []Layer  `json:"layers"`

	// What was not checked, since it is the other machine's.
	Unchecked Unchecked `json:"unchecked"`

	// Platforms are those of the layers of these names that the stores have, if nothing is
	// restorable: what may have been meant.
	Platforms []string `json:"platforms,omitempty"`
}

// A Layer is a layer with its steps, in the order in which they run.
type Layer struct {
	Name  string  `json:"name"`
	File  string  `json:"file"`
	Key   key.Key `json:"key"`
	Steps []Step  `json:"steps"`
}

// A Step is one step of a layer.
type Step struct {
	Line  int     `json:"line"`
	Text  string  `json:"text"`
	Key   key.Key `json:"key"`
	State State   `json:"state"`
	Why   string  `json:"why,omitempty"`
	Store string  `json:"store,omitempty"` // of a restorable step
	Size  int64   `json:"size,omitempty"`  // bytes
}

// Unchecked is what restorable steps need, and what keys depend on, of the other machine.
type Unchecked struct {
	Needs     []Need     `json:"needs"`
	Unknown   []string   `json:"unknown,omitempty"` // steps of which no store says what they need: FILE:LINE
	Variables []Variable `json:"variables"`
	Sources   []Source   `json:"sources"`
}

// A Need is something that the root of the machine has to have.
type Need struct {
	cache.Need
	Text string   `json:"text"`
	At   []string `json:"at"` // the steps: FILE:LINE
}

// A Variable is one of the session by which keys may be others there.
type Variable struct {
	Name  string    `json:"name"`
	InKey dag.InKey `json:"inKey"`
	At    []string  `json:"at"`
}

// A Source is what a FETCH or COPY reads: the key depends on what it is there.
type Source struct {
	Text string   `json:"source"`
	At   []string `json:"at"`
}

// An UnknownPlatformError says that a text is no platform.
type UnknownPlatformError struct{ Text string }

func (e *UnknownPlatformError) Error() string {
	return fmt.Sprintf("%q is no platform: want OS/ARCHITECTURE, the distribution with its version, and python3.X, as in \"linux/amd64 debian 12 python3.11\"", e.Text)
}

// platform is what machine.Platform returns: a distribution without a version has no version
// here, and a root without os-release has neither.
var platform = lazyregexp.New(`^(linux|darwin)/(amd64|arm64|arm|386|riscv64|ppc64le|s390x|loong64)( [a-z0-9][a-z0-9._-]*( [A-Za-z0-9][A-Za-z0-9._~+-]*)?)?( python3(\.[0-9]+)?)?$`)

// CheckPlatform reports whether a text may be a platform, as keys have it.
func CheckPlatform(text string) error {
	if !platform().MatchString(text) {
		return &UnknownPlatformError{text}
	}
	return nil
}

// Plan says what Solve with these options would do on a machine of a platform to which
// nothing is applied. The stores of the options are those that it reaches; what only the local
// one has is to run there.
func Plan(ctx context.Context, opt solver.Options, platform string) (*Report, error) {
	if err := CheckPlatform(platform); err != nil {
		return nil, err
	}
	local := opt.Local
	opt.Local = nil
	p, found, err := solver.PlanFor(ctx, opt, platform)
	if err != nil {
		return nil, err
	}
	r := &Report{Version: 1, Platform: platform, Stores: []string{}, Layers: []Layer{}}
	for _, s := range opt.Stores {
		r.Stores = append(r.Stores, s.Location())
	}
	g := gatherer{needs: make(map[string]*Need), variables: make(map[string]*Variable)}
	restorable := 0
	for i := range p.Layers {
		pl := &p.Layers[i]
		here := make(map[key.Key][]cache.Found)
		if local != nil {
			// What cannot be read is not there: this store is none of the machine's.
			here, _ = local.Variants(ctx, cache.Tag(pl.Layer.Name, pl.Key), p.Keys.Of(pl.Layer))
		}
		l := Layer{Name: pl.Layer.Name, File: pl.Layer.File.Path, Key: pl.Key, Steps: []Step{}}
		for j := range pl.Items {
			s := g.step(&pl.Items[j], found, here)
			if s.State == Restorable {
				restorable++
			}
			l.Steps = append(l.Steps, s)
		}
		r.Layers = append(r.Layers, l)
		for _, v := range pl.Layer.Assumed(opt.BuildArgs) {
			g.variable(v)
		}
	}
	r.Unchecked = g.unchecked(p)
	if restorable == 0 {
		r.Platforms = platforms(ctx, opt.Stores, p, platform)
	}
	return r, context.Cause(ctx)
}

// A gatherer gathers what is unchecked, each once.
type gatherer struct {
	needs     map[string]*Need // by all that it says
	variables map[string]*Variable
	unknown   []string
}

func (g *gatherer) step(it *dag.Item, found map[key.Key]cache.Found, here map[key.Key][]cache.Found) Step {
	at := it.Step.Pos().String()
	s := Step{Line: it.Step.Pos().Line, Text: it.Step.Text(), Key: it.Key, State: ToRun, Why: it.Why}
	switch {
	case it.State == dag.Variables:
		s.State = Variables
	case it.State == dag.Cached:
		f := found[it.Key]
		s.State, s.Store, s.Size = Restorable, it.Found.Store, it.Found.Size
		if f.Needs == nil {
			g.unknown = append(g.unknown, at)
		}
		for _, n := range f.Needs {
			if n.Kind == snapshot.NeedAlternative { // which is met anywhere
				continue
			}
			n.By = "" // the same may be needed by several
			id := fmt.Sprintf("%+v", n)
			if g.needs[id] == nil {
				g.needs[id] = &Need{Need: n, Text: describe(n)}
			}
			if have := g.needs[id]; !slices.Contains(have.At, at) {
				have.At = append(have.At, at)
			}
		}
	case len(here[it.Key]) > 0:
		s.Why = "only the store of this machine has it"
	}
	return s
}

func (g *gatherer) variable(a dag.Assumption) {
	v := g.variables[a.Name]
	if v == nil {
		v = &Variable{Name: a.Name, InKey: a.InKey}
		g.variables[a.Name] = v
	}
	if a.InKey == dag.ByDigest { // stricter than by name
		v.InKey = a.InKey
	}
	v.At = append(v.At, a.Pos.String())
}

// describe is Need.String, with what distinguishes libraries.
func describe(n cache.Need) string {
	text := n.String()
	if n.Kind == snapshot.NeedLibrary && len(n.Versions) > 0 {
		text += " with " + strings.Join(n.Versions, ", ")
	}
	return text
}

// unchecked returns what was gathered, in an order of its own.
func (g *gatherer) unchecked(p *dag.Plan) Unchecked {
	u := Unchecked{Needs: []Need{}, Unknown: g.unknown, Variables: []Variable{}, Sources: []Source{}}
	for _, id := range slices.Sorted(maps.Keys(g.needs)) { // their kind is first
		u.Needs = append(u.Needs, *g.needs[id])
	}
	for _, name := range slices.Sorted(maps.Keys(g.variables)) {
		u.Variables = append(u.Variables, *g.variables[name])
	}
	for _, src := range p.Graph.Sources {
		if f, ok := src.Steps[0].Instr.(*frontend.Fetch); ok && f.Checksum != "" {
			continue // the same everywhere
		}
		s := Source{Text: src.Label()}
		for _, step := range src.Steps {
			s.At = append(s.At, step.Pos().String())
		}
		u.Sources = append(u.Sources, s)
	}
	return u
}

// platforms returns those of other layers of the names in a plan.
func platforms(ctx context.Context, stores []cache.Store, p *dag.Plan, but string) []string {
	all := make(map[string]bool)
	for _, s := range stores {
		list, err := s.List(ctx)
		if err != nil {
			continue // it only explains
		}
		for _, m := range list {
			if m.Platform != but && slices.ContainsFunc(p.Layers, func(pl dag.PlannedLayer) bool { return pl.Layer.Name == m.Name }) {
				all[m.Platform] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
