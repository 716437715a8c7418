package exec

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/internal/catchup"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/report"
)

// stores reports whether the snapshot of a step is put into the stores.
func (b *builder) stores(s *dag.Step, bl *blob) bool {
	if b.Store == nil || !b.Push || b.Steps.Unstored(s.Layer) || b.identity.Refused(s) {
		return false
	}
	switch {
	case b.isOther(s) && !b.other[s]:
		return false
	case b.isOther(s):
		b.Report.Warnf("%s: what it makes is neither stored nor pushed: a snapshot that stores list cannot be had, and its step has made another one. An ordinary solve stores it", s.Pos())
		return false
	case b.differs(b.sv.Plan.Item(s)) && len(b.foundLost()) == 0:
		b.Report.Warnf("%s: its snapshot is neither stored nor pushed: it did not find all that the steps before it make", s.Pos())
		return false
	case b.differs(b.sv.Plan.Item(s)):
		b.Report.WarnOnce("what RUN makes is neither stored nor pushed: it finds here what steps that ran in place, and were undone since, have changed for good, %s. Another machine stores it, or this one after an undo of everything, which takes what is there then for the machine's own", running.Paths(b.foundLost()))
		return false
	case bl.installedNothing && !inventory.Installs(s):
		b.Report.Warnf("%s: RUN: it changed nothing, and may have found what was installed by hand, so its snapshot would lack that elsewhere: it is neither stored nor pushed", s.Pos())
	case bl.installedNothing:
		b.Report.Warnf("%s: RUN: what it installs is on this machine already, so its snapshot would install nothing elsewhere: it is neither stored nor pushed. "+
			"It runs in every session (%s this time), before what follows it is restored; remove the line if all machines have what it installs", s.Pos(), bl.desc.Took.Round(time.Millisecond))
	}
	return !bl.installedNothing
}

// decided returns whether a step that has run broke its chain, so that cached steps after it
// are to run, and that in words.
func (b *builder) decided(s *dag.Step, bl *blob) (changed bool, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	want := b.sv.Again[s]
	b.other[s] = want != "" && bl.desc.DiffID != want
	if b.other[s] {
		return true, "it made something else: cached steps after it run"
	}
	if want != "" {
		return false, "it made the same again: cached steps after it are restored"
	}
	if bl.installedNothing {
		return false, "it changed nothing: cached steps after it are restored"
	}
	return true, "it changed something: cached steps after it run"
}

// isOther reports whether a step, or one before it in its chain, has made another snapshot
// than the one that stores list under its key, which is to stay the only one.
func (b *builder) isOther(s *dag.Step) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.SameOnly || len(b.other) == 0 {
		return false
	}
	for l, end := s.Layer, s.Index; l != nil; l, end = l.On, len(l.On.Steps)-1 {
		if slices.ContainsFunc(l.Steps[:end+1], func(s *dag.Step) bool { return b.other[s] }) {
			return true
		}
		if l.Ordered || l.On == nil {
			return false
		}
	}
	return false
}

// made returns the digest of a step's snapshot, if that is on this machine.
func (b *builder) made(s *dag.Step) (digest.Digest, bool) {
	bl := b.blob(s)
	if bl == nil || bl.installedNothing { // then it is in no store
		return "", bl != nil
	}
	return survey.Changing(bl.desc), true
}

// Put stores a step's snapshot. A store that fails reports that, once, and fails
// nothing.
func (b *builder) Put(ctx context.Context, s *dag.Step) {
	bl := b.blob(s)
	start := time.Now()
	b.Report.Emit(report.Event{Kind: report.Storing, Step: s, Bytes: bl.desc.Size})
	if err := b.Store.Put(ctx, bl.desc, bl.bytes); err != nil {
		return
	}
	b.mu.Lock()
	b.stored++
	b.mu.Unlock()
	b.Report.Emit(report.Event{Kind: report.Stored, Step: s, Bytes: bl.desc.Size, Took: time.Since(start)})
}

// Complete lists the layers that are whole in the stores, with all their steps.
func (b *builder) Complete(ctx context.Context) {
	if b.Store == nil || !b.Push {
		return
	}
	applied := make(map[key.Key]record.Applied)
	for _, l := range b.sv.State.Layers {
		for _, a := range l.Steps {
			applied[a.Key] = a
		}
	}
	for i := range b.sv.Plan.Layers {
		pl := &b.sv.Plan.Layers[i]
		if b.Steps.Unstored(pl.Layer) || slices.ContainsFunc(pl.Items, func(it dag.Item) bool { return applied[it.Key].Differs || b.differs(&it) }) {
			continue
		}
		m, fresh := b.manifest(ctx, pl, applied)
		if !fresh || len(m.Steps) == 0 {
			continue
		}
		// A store that lost a step of it, or never had it, lists no layer.
		_ = b.Store.Complete(ctx, m) // the store has reported it
	}
}

// manifest returns the manifest of a layer, and whether anything of it was built or
// restored now. applied is what the root had before.
func (b *builder) manifest(ctx context.Context, pl *dag.PlannedLayer, applied map[key.Key]record.Applied) (m cache.Manifest, fresh bool) {
	m = cache.Manifest{Version: cache.Version, Name: pl.Layer.Name, Key: pl.Key, Platform: b.sv.Platform, Created: time.Now().UTC()}
	for i := range pl.Items {
		it := &pl.Items[i]
		if !it.Step.ChangesRoot() {
			continue
		}
		a := applied[it.Key]
		d := catchup.Descriptor(a, pl.Layer.Name)
		leftOut := a.LeftOut
		if bl := b.blobs[it.Step]; bl != nil {
			d, leftOut = bl.desc, bl.installedNothing
			fresh = fresh || it.State != dag.Present
		}
		if leftOut {
			// Another machine may have stored a snapshot that installs something.
			found, ok := b.findOne(ctx, it)
			if !ok || found.Entries == 0 {
				m.LeftOut = append(m.LeftOut, cache.LeftOut{Key: d.Key, Index: len(m.Steps) + len(m.LeftOut), Record: d.Record, Text: d.Text, Took: d.Took})
				continue
			}
			d = found.Descriptor
		}
		m.Steps = append(m.Steps, d)
	}
	m.BoundFrames()
	return m, fresh
}

// findOne asks the stores for the snapshot of a step that is present: the plan
// had no need to.
func (b *builder) findOne(ctx context.Context, it *dag.Item) (cache.Found, bool) {
	if b.Store == nil {
		return cache.Found{}, false
	}
	k := b.Steps.KeyOf(it.Key)
	found, err := b.Store.Find(ctx, cache.Tag(it.Step.Layer.Name, b.sv.Plan.Keys.Layer[it.Step.Layer]), []key.Key{k})
	d, ok := found[k]
	return d, ok && err == nil
}

func (b *builder) Find(ctx context.Context, present map[*dag.Step]bool) (map[key.Key]cache.Found, error) {
	return b.Steps.Find(ctx, b.sv.Plan.Graph, b.sv.Plan.Keys, present)
}
