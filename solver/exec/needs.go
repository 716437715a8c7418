package exec

import (
	"context"
	"maps"
	"path"
	"slices"
	"sync"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/places"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/internal/variants"
	"github.com/clayer/clayer/solver/sandbox"
)

// recorder returns what finds the needs of a RUN in what it changes in a view, before it
// runs there.
func (b *builder) recorder(v sandbox.View, s *dag.Step) (*needs.Recorder, error) {
	r := &needs.Recorder{Site: b.site(s, b.root.Names()), Covered: b.coveredBy(s), Named: b.Steps.Named(s), Command: s.Text()}
	open := v.Open
	if b.Watched != nil {
		open = b.lock.OpenSaved
	}
	if err := r.ReadDatabases(open, b.databasesBefore(s)); err != nil {
		return nil, err
	}
	for _, it := range b.sv.Covered(s) {
		if bl := b.blob(it.Step); bl != nil {
			r.Chain = append(r.Chain, bl.desc.Needs...)
		} else {
			r.Chain = append(r.Chain, b.sv.Applied(it.Key).Needs...)
		}
	}
	if b.isInPlace() {
		r.Before = func(path string) names.Kind {
			switch dir, existed := b.inPlace.Before(path); {
			case dir != nil:
				return names.Dir
			case existed:
				return names.File
			}
			return names.Missing
		}
		var err error
		if home, _ := r.Session(); b.Watched == nil {
			b.sums, err = needs.Sums(b.root.Dir(), home, b.sums)
		}
		r.Saved = maps.Clone(b.sums)
		for _, p := range b.dirty { // it was another file before an earlier RUN
			delete(r.Saved, p)
		}
		return r, err
	}
	items, chain := b.sv.Before(s), survey.CoveredLayers(s.Layer)
	stay, revert := b.sv.Lower(items)
	err := b.revertNames(r.View, revert)
	for _, it := range items {
		if err == nil && !stay[it.Key] && !chain[it.Step.Layer] {
			err = b.addNames(r.View, it, false, s.Layer)
		}
	}
	return r, err
}

// databasesBefore returns the paths of databases, beside those that all roots have, that
// the steps before one have written.
func (b *builder) databasesBefore(s *dag.Step) (paths []string) {
	for _, it := range b.sv.Before(s) {
		for p := range b.writtenBy(it) {
			if slices.Contains(databases.Dirs, path.Dir(p)) {
				paths = append(paths, p)
			}
		}
	}
	return paths
}

// site is a root as a step finds it, with what the step gets of the session.
func (b *builder) site(s *dag.Step, view *names.View) *needs.Site {
	return needs.NewSite(view, func() (string, []string) { return b.Steps.Session(s) })
}

// recorded returns the needs that were recorded. A step whose needs nobody knows is
// stored without, as by earlier versions; one with too many, with some of them.
func (b *builder) recorded(s *dag.Step, r *needs.Recorder) []snapshot.Need {
	found, err := r.Needs()
	if err != nil {
		b.Report.Warnf("%s: what its snapshot needs of other machines is not recorded in full: %v", s.Pos(), err)
	}
	return append(found, b.placesBefore(s)...)
}

// placedNeeds returns what another root has to be like for what a FETCH, COPY or WORKDIR
// makes where it finds the names of at.
func (b *builder) placedNeeds(ctx context.Context, s *dag.Step, at *names.View) ([]snapshot.Need, error) {
	dest, err := b.Steps.Destination(ctx, s)
	if err != nil {
		return nil, err
	}
	root := places.Root{Found: at, Covered: func(string) bool { return false }, Base: func(n snapshot.Need) (string, error) { return b.baseLacks(s, n) }}
	if len(b.sv.Covered(s)) > 0 {
		root.Covered = b.coveredBy(s)
	}
	n, ok, err := root.Need(dest)
	if err != nil || !ok {
		return []snapshot.Need{}, err
	}
	return []snapshot.Need{n}, nil
}

// placesBefore returns the needs of the FETCH, COPY and WORKDIR that are before a step in its
// chain, and after what it was built on: it may have looked where they put their files.
func (b *builder) placesBefore(s *dag.Step) []snapshot.Need {
	all := []snapshot.Need{}
	for _, it := range slices.Backward(b.sv.Covered(s)) {
		var d cache.Descriptor
		if bl := b.blob(it.Step); bl != nil {
			d = bl.desc
		} else {
			a := b.sv.Applied(it.Key)
			d.Digest, d.Entries, d.Needs = a.Digest, a.Entries, a.Needs
		}
		if it.Step.LooksAtRoot() && survey.Changing(d) != "" {
			break
		}
		if it.Step.IsPlaced() {
			for _, n := range d.Needs {
				if !slices.ContainsFunc(all, func(o snapshot.Need) bool { return o.Path == n.Path && o.Target == n.Target && o.Type == n.Type }) {
					all = append(all, n)
				}
			}
		}
	}
	return all
}

// baseLacks returns what a root without what the steps that the key of a step covers have
// written lacks of a need, as far as that is known.
func (b *builder) baseLacks(s *dag.Step, n snapshot.Need) (string, error) {
	if b.isInPlace() {
		dest, err := b.Steps.Destination(context.Background(), s)
		if led, ok := b.led[s]; ok && err == nil && "/"+n.Path == path.Clean(dest.Path) {
			return led.Unmet(n)
		}
		return "", err
	}
	covered := make(map[key.Key]bool)
	for _, it := range b.sv.Covered(s) {
		covered[it.Key] = true
	}
	view, items, log := b.root.Names(), b.sv.Before(s), b.sv.State.Log
	first, _ := b.sv.Lower(items)
	stay := 0
	for stay < len(first) && !covered[log[stay].Key] {
		stay++
	}
	err := b.revertNames(view, log[stay:])
	for _, it := range items {
		there := slices.ContainsFunc(log[:stay], func(ev record.Event) bool { return ev.Key == it.Key })
		if err == nil && !covered[it.Key] && !there && b.Has(it.Step) {
			err = b.addNames(view, it, false, s.Layer)
		}
	}
	if err != nil {
		return "", err
	}
	return places.Of(view).Unmet(n)
}

// leadDests notes where the root leads the dests of steps that are to run in place, before
// others change that.
func (b *builder) leadDests(ctx context.Context) {
	b.led = make(map[*dag.Step]places.Place)
	for _, it := range b.sv.Before(nil) {
		if it.State == dag.ToRun && it.Step.IsPlaced() {
			if dest, err := b.Steps.Destination(ctx, it.Step); err == nil { // or making it fails too
				b.led[it.Step] = places.Led(b.root.Names().Resolve(dest.Path))
			}
		}
	}
}

// coveredBy returns what reports whether a path was written by a step that a step's key
// covers.
func (b *builder) coveredBy(s *dag.Step) func(path string) bool {
	wrote := sync.OnceValue(func() (all []map[string]bool) {
		for _, it := range b.sv.Covered(s) {
			all = append(all, b.writtenBy(it))
		}
		return all
	})
	return func(path string) bool {
		return slices.ContainsFunc(wrote(), func(paths map[string]bool) bool { return paths[path] })
	}
}

// writtenBy returns the paths that a step before has written, as far as that is known.
func (b *builder) writtenBy(it *dag.Item) map[string]bool {
	b.mu.Lock()
	paths := b.written[it.Key]
	b.mu.Unlock()
	if paths != nil {
		return paths
	}
	paths = make(map[string]bool)
	if bl := b.blob(it.Step); bl != nil {
		for l, err := range snapshot.List(bl.bytes, bl.desc.Size) {
			if err != nil {
				break // of another tool: what it wrote counts as the base's
			}
			paths[l.Path] = true
		}
	} else {
		for _, ev := range b.sv.State.Log {
			if ev.Key != it.Key {
				continue
			}
			wrote, err := b.root.Wrote(ev)
			if err != nil {
				break
			}
			for _, p := range wrote {
				paths[p] = true
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written == nil {
		b.written = make(map[key.Key]map[string]bool)
	}
	b.written[it.Key] = paths
	return paths
}

// unmetHere returns an error where a root lacks what the snapshot of an item needs.
func (b *builder) unmetHere(it *dag.Item, view *names.View) error {
	if !b.sv.ChecksLate(it) {
		return nil
	}
	site := b.site(it.Step, view)
	unmet, err := site.Unmet(b.sv.Found[it.Key].Needs)
	if err == nil && unmet != "" {
		err = &variants.UnmetError{Lacks: unmet}
	}
	return err
}
