package dag

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/sizes"
)

// State is what a solve has to do for a step.
type State uint8

// The states of a step.
const (
	Undecided State = iota
	Present         // it is in this root already
	Cached          // a store has its snapshot
	ToRun           // it has to be run, or fetched
	Variables       // it sets variables, which takes no work
)

func (s State) String() string {
	switch s {
	case Undecided:
		return "undecided"
	case Present:
		return "present"
	case Cached:
		return "cached"
	case ToRun:
		return "to run"
	case Variables:
		return "variables only"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText writes the state as String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Found says where a snapshot is.
type Found struct {
	Store   string // the store's name
	Size    int64  // bytes of the blob
	Variant int    // which of the snapshots that the store has under the key, from 2; 0: the first

	ByContent bool // it was found by the second key: the steps before it made what they made when it was built
	Cutoff    bool // it has a second key
}

// An Old is a step of an earlier solve: what explains why a key is another now.
type Old struct {
	Key    key.Key
	Line   int
	Record key.Record
	Took   time.Duration

	LeftOut bool // it is in no store, since it changed nothing
	Changed bool // it changed something, so that what follows it was made on top of that
	Recoded bool // its key is of another encoding than key.Encoding
	Cutoff  bool // its snapshot has a second key
}

// Answers is what the root and the stores said.
type Answers struct {
	Present  map[*Step]bool // by step: two layers may have steps of the same key, of which one is in the root
	Cached   map[key.Key]Found
	Previous map[string][]Old // by layer name, in order
	Undo     []key.Key        // steps in the root that are undone first, the last applied first

	// Unmet says of cached steps what their snapshots need and the root lacks, as
	// "needs libpq.so.5, which this machine lacks".
	Unmet map[key.Key]string

	// Rejected are layers of which all runs that follows the first step to run: nothing of it
	// is restored by its second key.
	Rejected map[*Layer]bool

	// Gone says of steps in the root which packages they stand on the root lacks by now, as
	// Unmet has it. They are not Present.
	Gone map[key.Key]string

	// Unstored reports whether a step is one that goes into no store when it changes
	// nothing; nil: none is.
	Unstored func(*Step) bool

	// Again reports whether a step is one whose snapshot cannot be had, so that it may make
	// the same again; nil: none is.
	Again func(*Step) bool
}

// A Plan says for every step of a graph what a solve would do, and why.
type Plan struct {
	Graph  *Graph
	Keys   *Keys
	Layers []PlannedLayer
	Undo   []key.Key // steps in the root that are undone first, the last applied first

	// Stages are those that steps to run copy from, with what they build on: each is the
	// last layer of a plan of its own. One comes after those that it copies from.
	Stages []*Plan
}

// Stage returns the last layer of a plan: what a stage is.
func (p *Plan) Stage() *PlannedLayer { return &p.Layers[len(p.Layers)-1] }

// A PlannedLayer is a layer with its steps in the order in which they run.
type PlannedLayer struct {
	Layer *Layer
	Key   key.Key
	Items []Item
}

// An Item is a step with what there is to do for it.
type Item struct {
	Step     *Step
	Key      key.Key
	State    State
	Found    Found         // of a cached step
	Why      string        // of a step to run: the reason; of Variables: that
	Estimate time.Duration // of a step to run: how long it took before; 0 if unknown

	// Decides is set on a step to run if cached steps follow it in its chain: they are
	// restored if it changes nothing, or makes the snapshot again that cannot be had, else
	// they are to run.
	Decides bool

	// MayMatch is set on a step to run of which a snapshot with a second key is known: if
	// the steps before it make what that was built on, it is restored after all.
	MayMatch bool
}

// NewPlan decides the state of every step. In a chain (a layer, with those that
// it builds on by FROM) steps are present, then cached, up to the first one
// that is neither; that one and all that follow are to run. A step that may be in
// no store because it changed nothing is run, and ends the cached part only if it
// changes something now; one whose snapshot cannot be had, only if it makes another one.
func NewPlan(g *Graph, keys *Keys, a Answers) *Plan {
	p := &Plan{Graph: g, Keys: keys, Undo: a.Undo}
	type prefix struct {
		absent bool    // a step is not present: none that follows counts as present
		broken *Step   // the first step to run; nil while there is none
		tried  []*Item // steps to run that break the chain only if they change something
	}
	last := lastCached(g, keys, a)
	ends := make(map[*Layer]prefix, len(g.Layers))
	for _, l := range g.Layers {
		var pre prefix
		if l.On != nil && !l.Ordered {
			pre = ends[l.On]
		}
		pl := PlannedLayer{Layer: l, Key: keys.Layer[l], Items: make([]Item, 0, len(l.Steps))}
		old := newHistory(keys, l, a.Previous[l.Name])
		for _, s := range l.Steps {
			it := Item{Step: s, Key: keys.Step[s]}
			found, cached := a.Cached[it.Key]
			switch {
			case !pre.absent && a.Present[s]:
				it.decide(Present)
			case !s.ChangesRoot():
				// Nothing to store or to restore: it breaks no chain.
				it.decide(Variables)
				it.Why = "sets variables only"
			case pre.broken == nil && cached && a.Unmet[it.Key] == "":
				it.decide(Cached)
				it.Found = found
				pre.absent = true
				for _, t := range pre.tried {
					t.Decides, t.Why = true, "in no store; if it changes nothing, what follows is restored"
					if a.Again != nil && a.Again(t.Step) {
						t.Why = "its snapshot cannot be had; if it makes the same again, what follows is restored"
					}
				}
			default:
				it.decide(ToRun)
				unused := ""
				if cached {
					unused = a.whyUnused(it.Key, pre.broken)
				}
				it.Why, it.Estimate = old.explain(s, it.Key, unused)
				switch {
				case a.Rejected[l]:
				case cached:
					it.MayMatch = found.Cutoff
				case pre.broken != nil && old.mayMatch(s):
					it.MayMatch, it.Why = true, whyMayMatch(s, pre.broken)
				}
				if gone := a.Gone[it.Key]; gone != "" && pre.broken == nil {
					it.Why = "in the root, but " + gone
				}
				pre.absent = true
				if pre.broken == nil && !cached && s.Index < last[l] && a.mayBreakNothing(s) && !old.changed(it.Key) {
					pl.Items = append(pl.Items, it)
					pre.tried = append(slices.Clip(pre.tried), &pl.Items[len(pl.Items)-1])
					continue
				}
				if pre.broken == nil {
					pre.broken = s
				}
			}
			pl.Items = append(pl.Items, it)
		}
		ends[l] = pre
		p.Layers = append(p.Layers, pl)
	}
	return p
}

// mayBreakNothing reports whether what follows a step that is to run may be restored.
func (a *Answers) mayBreakNothing(s *Step) bool {
	return a.Unstored != nil && a.Unstored(s) || a.Again != nil && a.Again(s)
}

// decide is the only place that sets the state of a step. A decision is final.
func (it *Item) decide(to State) {
	if it.State != Undecided {
		panic(fmt.Sprintf("dag: %s is decided twice", it.Step.Pos()))
	}
	it.State = to
}

// lastCached returns the index of the last cached step of each layer, and the number
// of its steps if a layer that builds on it has one.
func lastCached(g *Graph, keys *Keys, a Answers) map[*Layer]int {
	last := make(map[*Layer]int, len(g.Layers))
	for _, l := range slices.Backward(g.Layers) {
		any := last[l] > 0
		for i, s := range l.Steps {
			if _, ok := a.Cached[keys.Step[s]]; ok {
				any = true
				last[l] = max(last[l], i)
			}
		}
		if any && l.On != nil && !l.Ordered {
			last[l.On] = len(l.On.Steps)
		}
	}
	return last
}

// Gone counts the steps that are undone and not applied again.
func (p *Plan) Gone() int {
	stay := make(map[key.Key]bool)
	for _, pl := range p.Layers {
		for _, it := range pl.Items {
			stay[it.Key] = true
		}
	}
	n := 0
	for _, k := range p.Undo {
		if !stay[k] {
			n++
		}
	}
	return n
}

// Item returns the plan of a step.
func (p *Plan) Item(s *Step) *Item {
	return &p.Layers[s.Layer.index].Items[s.Index]
}

// Totals counts steps that change the root, by state.
type Totals struct {
	Steps, Present, Cached, ToRun int
	CachedBytes                   int64
	Stores                        []string      // that cached steps are in, each once
	Estimate                      time.Duration // of the steps to run, as long as they took before
	Unknown                       int           // steps to run of which that is not known
}

// String says the totals in words: "1 to run, 2 cached (dir, 41 MB)".
func (t Totals) String() string {
	var parts []string
	if t.ToRun > 0 {
		s := fmt.Sprintf("%d to run", t.ToRun)
		if t.Estimate >= time.Second {
			s += fmt.Sprintf(" (~%s", t.Estimate.Round(time.Second))
			if t.Unknown > 0 {
				s += fmt.Sprintf(", and %d never timed", t.Unknown)
			}
			s += ")"
		}
		parts = append(parts, s)
	}
	if t.Cached > 0 {
		parts = append(parts, fmt.Sprintf("%d cached (%s, %s)", t.Cached, strings.Join(t.Stores, ", "), sizes.Format(t.CachedBytes)))
	}
	if t.Present > 0 {
		parts = append(parts, fmt.Sprintf("%d present", t.Present))
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// Totals counts the steps of all layers.
func (p *Plan) Totals() Totals {
	var all Totals
	for i := range p.Layers {
		t := p.Layers[i].Totals()
		all.Steps += t.Steps
		all.Present += t.Present
		all.Cached += t.Cached
		all.ToRun += t.ToRun
		all.CachedBytes += t.CachedBytes
		all.Estimate += t.Estimate
		all.Unknown += t.Unknown
		for _, s := range t.Stores {
			if !slices.Contains(all.Stores, s) {
				all.Stores = append(all.Stores, s)
			}
		}
	}
	return all
}

// Totals counts the steps of a layer.
func (pl *PlannedLayer) Totals() Totals {
	var t Totals
	for _, it := range pl.Items {
		if !it.Step.ChangesRoot() {
			continue
		}
		t.Steps++
		switch it.State {
		case Present:
			t.Present++
		case Cached:
			t.Cached++
			t.CachedBytes += it.Found.Size
			if !slices.Contains(t.Stores, it.Found.Store) {
				t.Stores = append(t.Stores, it.Found.Store)
			}
		case ToRun:
			t.ToRun++
			t.Estimate += it.Estimate
			if it.Estimate == 0 {
				t.Unknown++
			}
		}
	}
	return t
}

// Sources returns the plan's source nodes with what there is to do for each: to
// run (be fetched) if one of its steps is, else what its steps are.
func (p *Plan) Sources() []PlannedSource {
	var list []PlannedSource
	for _, src := range p.Graph.Sources {
		ps := PlannedSource{Source: src}
		for _, s := range src.Steps {
			ps.State = max(ps.State, p.Item(s).State)
		}
		list = append(list, ps)
	}
	return list
}

// A PlannedSource is a source with what there is to do for it.
type PlannedSource struct {
	Source *Source
	State  State
}

// Edges returns the edges of the graph, each from what depends to what it
// depends on, ordered.
func (g *Graph) Edges() []Edge {
	var edges []Edge
	for _, l := range g.Layers {
		for _, s := range l.Steps {
			if s.Source != nil {
				edges = append(edges, Edge{From: s, Source: s.Source})
			}
			if s.Index > 0 {
				edges = append(edges, Edge{From: s, To: l.Steps[s.Index-1]})
				continue
			}
			// A layer without steps passes on what it builds on itself.
			order := l.Ordered
			on := l.On
			for on != nil && on.Last() == nil {
				order = order || on.Ordered
				on = on.On
			}
			if on != nil {
				edges = append(edges, Edge{From: s, To: on.Last(), OrderOnly: order})
			}
		}
	}
	return edges
}

// An Edge says that From depends on To, or on Source.
type Edge struct {
	From      *Step
	To        *Step   // nil where it is a source
	Source    *Source // nil where it is a step
	OrderOnly bool    // it enters no key
}
