// Package variants chooses which of the snapshots that stores have of each step is
// restored: those that were built on each other, and whose needs the root meets.
//
// Choose does so for a plan. Where it is known later that the root lacks what a snapshot
// needs, Lost chooses another one.
package variants

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/survey"
)

// Asked is what stores answer: all snapshots that they have of steps of one layer.
type Asked func(ctx context.Context, keys *dag.Keys, l *dag.Layer, steps []*dag.Step) (map[key.Key][]cache.Found, error)

// A Choice is how snapshots are chosen for a plan.
type Choice struct {
	Survey *survey.Survey
	Graph  *dag.Graph
	Keys   *dag.Keys
	View   func() (*names.View, error) // the root as it will be without what is undone
	Ask    Asked

	// Session returns what a step gets of the session: see needs.Site.
	Session func(*dag.Step) (home string, path []string)
	Warn    func(format string, args ...any)

	// Unchecked says that the root is another machine's, which counts as one that has all
	// that snapshots need.
	Unchecked bool

	base *needs.Site // nil until a need is checked

	// all has what the stores have of the steps of a layer, for the layers of chains of
	// which a snapshot that Find returned is of no use.
	all   map[*dag.Layer]map[key.Key][]cache.Found
	reach map[reached]int

	checked map[*cache.Need]int // by the first need, how many make sense: steps share them
}

// Choose finds the cached steps that need what the root lacks, and chooses among the
// snapshots of the others. What steps make that are not in the root yet is not known: where
// a layer is composed after such steps, which no key of its own covers, its needs are
// checked once more when those are applied.
func (c *Choice) Choose(ctx context.Context) error {
	c.all, c.reach, c.checked = make(map[*dag.Layer]map[key.Key][]cache.Found), make(map[reached]int), make(map[*cache.Need]int)
	for {
		again, err := c.pass(ctx)
		if err != nil || !again {
			return err
		}
	}
}

// pass chooses for all steps. It reports true where the stores were asked for more: an
// earlier step of the chain may be restored from another snapshot then.
func (c *Choice) pass(ctx context.Context) (again bool, err error) {
	sv, answers := c.Survey, &c.Survey.Answers
	answers.Unmet, sv.Late = make(map[key.Key]string), make(map[key.Key]bool)
	pending := make(map[*dag.Layer]bool)      // those with a step that is not in the root
	broken := make(map[*dag.Layer]bool)       // those in which a step is to run, and what follows it
	sites := make(map[*dag.Layer]*needs.Site) // with what the restored steps up to the end of a layer change
	for _, l := range c.Graph.Layers {
		late := survey.PendingBelow(l, pending)
		broken[l] = l.On != nil && !l.Ordered && broken[l.On]
		var chain *needs.Site
		for _, s := range l.Steps {
			if !s.ChangesRoot() || answers.Present[s] {
				continue
			}
			pending[l] = true
			k := c.Keys.Step[s]
			found, ok := sv.Found[k]
			broken[l] = broken[l] || !ok && (answers.Unstored == nil || !answers.Unstored(s))
			if !ok || broken[l] || len(found.Needs) == 0 && found.On == "" && c.all[l] == nil {
				continue
			}
			if c.base == nil {
				view, err := c.View()
				if err != nil {
					return false, err
				}
				c.base = needs.NewSite(view, nil)
			}
			if chain == nil {
				chain = siteOf(l, sites, c.base)
			}
			unmet, err := c.choose(s, chain.For(func() (string, []string) { return c.Session(s) }), late)
			if err != nil {
				return false, &UnreadError{s, err}
			}
			if unmet != "" {
				if again, err := c.ask(ctx, l); again || err != nil {
					return again, err
				}
				answers.Unmet[k], broken[l] = unmet, true
			}
			sv.Late[k] = late && len(sv.Found[k].Needs) > 0
			chain.Expect(sv.Found[k].Needs)
		}
		sites[l] = chain
	}
	return false, nil
}

// An UnreadError says that what a step needs could not be checked.
type UnreadError struct {
	Step *dag.Step
	err  error
}

func (e *UnreadError) Error() string {
	return fmt.Sprintf("%s: check what it needs: %v", e.Step.Pos(), e.err)
}

func (e *UnreadError) Unwrap() error { return e.err }

// siteOf returns the site of the first step of a layer: with what its key covers noted.
func siteOf(l *dag.Layer, sites map[*dag.Layer]*needs.Site, base *needs.Site) *needs.Site {
	for on := l; on.On != nil && !on.Ordered; on = on.On {
		if site := sites[on.On]; site != nil {
			return site.Clone()
		}
	}
	return base.Clone()
}

// unmet returns what a root lacks of what a snapshot needs; if that is checked late, as
// far as no step changes it.
func (c *Choice) unmet(s *dag.Step, site *needs.Site, found cache.Found, late bool) (string, error) {
	if first := &found.Needs[0]; c.checked[first] != len(found.Needs) {
		if err := needs.Check(found.Needs); err != nil {
			c.Warn("%s: what %s has cannot be used, since %v", s.Pos(), found.Store, err)
			return "what it needs makes no sense", nil
		}
		c.checked[first] = len(found.Needs)
	}
	if late {
		home := slices.IndexFunc(found.Needs, func(n cache.Need) bool { return n.Kind == snapshot.NeedHome })
		if home < 0 {
			return "", nil
		}
		return site.Unmet(found.Needs[home : home+1])
	}
	return site.Unmet(found.Needs)
}

// ask asks the stores for all snapshots of the chain that ends with a layer. It reports
// false if they have been asked.
func (c *Choice) ask(ctx context.Context, l *dag.Layer) (asked bool, err error) {
	for ; l != nil; l = l.On {
		if _, ok := c.all[l]; !ok {
			asked = true
			if c.all[l], err = c.variants(ctx, l); err != nil {
				return false, err
			}
		}
		if l.Ordered {
			break
		}
	}
	return asked, nil
}

func (c *Choice) variants(ctx context.Context, l *dag.Layer) (map[key.Key][]cache.Found, error) {
	var cached []*dag.Step
	for _, s := range l.Steps {
		if _, ok := c.Survey.Found[c.Keys.Step[s]]; ok && !c.Survey.Answers.Present[s] {
			cached = append(cached, s)
		}
	}
	answers, err := c.Ask(ctx, c.Keys, l, cached)
	if err != nil {
		return nil, err
	}
	all := make(map[key.Key][]cache.Found)
	for _, s := range cached {
		k := c.Keys.Step[s]
		all[k] = []cache.Found{c.Survey.Found[k]}
		for _, f := range answers[k] {
			if cache.Twin(f.Descriptor, all[k]) != f.Digest {
				all[k] = append(all[k], f)
			}
		}
	}
	return all, nil
}

// standsOn returns the digest of the snapshot that a step stands on.
func (c *Choice) standsOn(s *dag.Step) digest.Digest {
	return survey.BuiltOn(s, func(before *dag.Step) digest.Digest { return c.Survey.Snapshot(before, c.Keys) })
}

// choose chooses one of the snapshots of a step, and returns why there is none.
func (c *Choice) choose(s *dag.Step, site *needs.Site, late bool) (unmet string, err error) {
	var best cache.Found
	longest := -1
	var one [1]cache.Found
	list, several := c.all[s.Layer][c.Keys.Step[s]]
	if !several {
		one[0] = c.Survey.Found[c.Keys.Step[s]]
		list = one[:]
	}
	var on digest.Digest
	known := false
	for _, f := range list {
		why := ""
		if f.ByContent() { // it was built on steps that made the same, maybe in other bytes
			if f.Key != c.Keys.Cutoff(s, c.Keys.Until(s, func(s *dag.Step) dag.Made { return c.Survey.Made(s, c.Keys) })) {
				why = otherSnapshot
			}
		} else if f.On != "" {
			if !known {
				on, known = c.standsOn(s), true
			}
			if on != "" && f.On != on {
				why = otherSnapshot
			}
		}
		if why == "" && len(f.Needs) > 0 && !c.Unchecked {
			if why, err = c.unmet(s, site, f, late); err != nil {
				return "", err
			}
		}
		if why != "" {
			if unmet == "" || f.On == on {
				unmet = why
			}
			continue
		}
		if !several {
			return "", nil
		}
		if n := c.reaches(s, f.Digest); n > longest {
			best, longest = f, n
		}
	}
	if longest < 0 {
		return unmet, nil
	}
	c.Survey.Find(c.Keys.Step[s], best)
	return "", nil
}

const otherSnapshot = "was built on another snapshot of a step before it"

type reached struct {
	step *dag.Step
	on   digest.Digest
}

// reaches returns how many steps after a step can be restored if it is restored from a
// snapshot, as far as that is known: what a step needs is checked against the root as it is.
func (c *Choice) reaches(s *dag.Step, on digest.Digest) int {
	if !s.LooksAtRoot() {
		return 0
	}
	id := reached{s, on}
	if n, ok := c.reach[id]; ok {
		return n
	}
	total := 0
	for _, next := range c.next(s) {
		longest := 0
		for _, f := range c.all[next.Layer][c.Keys.Step[next]] {
			if f.On != "" && f.On != on {
				continue
			}
			if c.isMet(next, f) {
				longest = max(longest, 1+c.reaches(next, f.Digest))
			}
		}
		total += longest
	}
	c.reach[id] = total
	return total
}

func (c *Choice) isMet(s *dag.Step, f cache.Found) bool {
	if len(f.Needs) == 0 || c.base == nil || c.Unchecked {
		return true
	}
	if needs.Check(f.Needs) != nil {
		return false
	}
	unmet, err := c.base.For(func() (string, []string) { return c.Session(s) }).Unmet(f.Needs)
	return err == nil && unmet == ""
}

// next returns the steps that stand on a step, of the chains that were asked for.
func (c *Choice) next(s *dag.Step) (steps []*dag.Step) {
	first := func(l *dag.Layer, from int) bool {
		for _, n := range l.Steps[from:] {
			if n.LooksAtRoot() {
				steps = append(steps, n)
				return true
			}
		}
		return false
	}
	var after func(l *dag.Layer)
	after = func(on *dag.Layer) {
		for l := range c.all {
			if l.On == on && !l.Ordered && !first(l, 0) {
				after(l)
			}
		}
	}
	if !first(s.Layer, s.Index+1) {
		after(s.Layer)
	}
	return steps
}
