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
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/exec/internal/identity"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/owners"
	"github.com/clayer/clayer/solver/internal/places"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/internal/variants"
	"github.com/clayer/clayer/solver/sandbox"
)

// recorder returns what finds the needs of a RUN in what it changes in a view, before it
// runs there.
func (b *builder) recorder(v sandbox.View, s *dag.Step, who *identity.User) (*needs.Recorder, error) {
	r := &needs.Recorder{Site: b.site(s, b.root.Names()), Covered: b.coveredBy(s), Named: b.Steps.Named(s), Command: s.Text()}
	open := v.Open
	if b.Watched != nil {
		open = b.lock.OpenSaved
	}
	if err := r.ReadDatabases(open, b.databasesBefore(s)); err != nil {
		return nil, err
	}
	r.Chain = b.chainNeeds(s)
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
			b.sums, err = needs.Sums(b.root.Dir(), who.Home(home), b.sums)
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

// chainNeeds returns what the steps need that the key of a step covers.
func (b *builder) chainNeeds(s *dag.Step) (all []snapshot.Need) {
	for _, it := range b.sv.Covered(s) {
		all = append(all, b.descriptor(it).Needs...)
	}
	return all
}

// descriptor returns what is known of the snapshot of a step before.
func (b *builder) descriptor(it *dag.Item) cache.Descriptor {
	if bl := b.blob(it.Step); bl != nil {
		return bl.desc
	}
	a := b.sv.Applied(it.Key)
	return cache.Descriptor{Digest: a.Digest, Entries: a.Entries, Needs: a.Needs}
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
func (b *builder) recorded(s *dag.Step, r *needs.Recorder, who *identity.User) []snapshot.Need {
	found, err := r.Needs()
	if err == nil {
		found, err = who.AddNeeds(found, r.Chain, r.Covered)
	}
	return append(b.warnUnrecorded(s, found, err), b.placesBefore(s)...)
}

func (b *builder) warnUnrecorded(s *dag.Step, found []snapshot.Need, err error) []snapshot.Need {
	if err != nil {
		b.Report.Warnf("%s: what its snapshot needs of other machines is not recorded in full: %v", s.Pos(), err)
	}
	return found
}

// placedNeeds returns what another root has to be like for what a FETCH, COPY or WORKDIR
// makes, these items, where it finds the names of at.
func (b *builder) placedNeeds(ctx context.Context, s *dag.Step, at *names.View, items *places.Items, copied *needs.Copied) (all []snapshot.Need) {
	root := places.Root{Found: at, Covered: b.coveredBy(s), Base: b.baseLacks(s)}
	dest, err := b.Steps.Destination(ctx, s)
	if err == nil {
		all, err = root.Needs(dest, items)
	}
	if err == nil && dest.Chown != "" {
		all, err = owners.AddNeeds(all, dest.Chown, dest.By, at, b.chainNeeds(s), root.Covered)
	}
	if err == nil {
		all, err = copied.AddNeeds(all)
	}
	return b.warnUnrecorded(s, all, err)
}

// copied returns what finds the needs of the programs that a COPY takes from a stage or an image,
// whose key does not say them; nil for another step.
func (b *builder) copied(s *dag.Step, at *names.View) *needs.Copied {
	if c, ok := s.Instr.(*frontend.Copy); !ok || !c.IsRoot() {
		return nil
	}
	return needs.OfCopy(b.site(s, at), b.coveredBy(s), b.chainNeeds(s))
}

// placesBefore returns the needs of the FETCH, COPY and WORKDIR that are before a step in its
// chain, and after what it was built on: it may have looked where they put their files.
func (b *builder) placesBefore(s *dag.Step) []snapshot.Need {
	all := []snapshot.Need{}
	for _, it := range slices.Backward(b.sv.Covered(s)) {
		d := b.descriptor(it)
		if it.Step.LooksAtRoot() && survey.Changing(d) != "" {
			break
		}
		if it.Step.IsPlaced() {
			all = places.AddLater(all, d.Needs)
		}
	}
	return all
}

// baseLacks returns what says what a root without what the steps that the key of a step
// covers have written lacks of a need, as far as that is known.
func (b *builder) baseLacks(s *dag.Step) func(snapshot.Need) (string, error) {
	if b.isInPlace() {
		return b.led[s].Lacks
	}
	base := sync.OnceValues(func() (*places.Places, error) {
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
		return places.Of(view), err
	})
	return func(n snapshot.Need) (string, error) {
		p, err := base()
		if err != nil {
			return "", err
		}
		return p.Unmet(n)
	}
}

// leadDests notes where the root leads the dests of steps that are to run in place, before
// others change that.
func (b *builder) leadDests(ctx context.Context) {
	b.led = make(map[*dag.Step]places.Place)
	for _, it := range b.sv.Before(nil) {
		if it.State == dag.ToRun && it.Step.IsPlaced() {
			if dest, err := b.Steps.Destination(ctx, it.Step); err == nil { // or making it fails too
				b.led[it.Step] = places.LedOf(b.root.Names(), dest)
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
	if bl := b.blob(it.Step); bl != nil {
		return b.written.By(it.Key, bl.bytes, bl.desc.Size, nil, nil)
	}
	return b.written.By(it.Key, nil, 0, b.root, b.sv.State.Log)
}

// unmetHere returns an error where a root lacks what the snapshot of an item needs.
func (b *builder) unmetHere(it *dag.Item, view *names.View) error {
	if !b.sv.ChecksLate(it) {
		return nil
	}
	unmet, err := b.site(it.Step, view).Unmet(b.sv.Found[it.Key].Needs)
	if err == nil && unmet != "" {
		err = &variants.UnmetError{Lacks: unmet}
	}
	return err
}
