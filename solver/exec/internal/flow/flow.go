// Package flow is the plan of a solve as nodes of a schedule: what waits for what, and
// what becomes of the plan when a snapshot is lost, or a step decides what follows it. It
// does nothing of it itself: that is Work.
package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/exec/internal/schedule"
	"github.com/clayer/clayer/solver/internal/survey"
)

// Work is what the nodes of a flow do. Package exec does it with stores, a sandbox
// and a root; tests count.
type Work interface {
	ChooseSandbox() (inPlace bool, err error) // chooses one, once a step is to run
	Download(ctx context.Context, s *dag.Step)

	Has(s *dag.Step) bool         // its snapshot is on this machine
	Forget(s *dag.Step)           // its snapshot is of no use
	Partial(it *dag.Item) bool    // prepares for it to be read while it arrives, if it can be
	Abort(s *dag.Step, err error) // it does not arrive
	Fetch(ctx context.Context, it *dag.Item, readable, whole func()) error
	Check(ctx context.Context, it *dag.Item) error
	PlacedHere(ctx context.Context, it *dag.Item) error // whether a cached step fits the root

	Prepare(ctx context.Context, s *dag.Step) error // returns what Make would fail by before it looks at the root
	Make(ctx context.Context, s *dag.Step) (Outcome, error)
	RunIn(ctx context.Context, v *survey.LayerView, s *dag.Step) (Outcome, error)
	ApplyTo(ctx context.Context, v *survey.LayerView, s *dag.Step) error
	CloseViews() // all that are open
	Put(ctx context.Context, s *dag.Step)

	Undoes() bool // there is something to undo
	Undo(ctx context.Context) error
	Apply(ctx context.Context, it *dag.Item) error
	Verify(ctx context.Context, it *dag.Item) error // after Apply, when all of the snapshot has arrived
	Rollback() error
	Commit(ctx context.Context) error
	Complete(ctx context.Context)

	EnterRoot(ctx context.Context) error                                                   // in place: what Apply is preceded by
	StepInPlace(ctx context.Context, it *dag.Item) (Outcome, error)                        // runs it, or applies it
	CommitInPlace(it *dag.Item) error                                                      // with the item, and all before it
	Find(ctx context.Context, present map[*dag.Step]bool) (map[key.Key]cache.Found, error) // what the stores have
	Lost(it *dag.Item, err error) error                                                    // reports it, or returns what is reported with others
	Choose(ctx context.Context, lost []key.Key) ([]key.Key, error)                         // chooses other snapshots of these, and returns those that have none
	ReportLost(lost []error)
	Replanned() // reports the plan, as a step has decided it
}

// What the nodes of a flow do.
const (
	kindPlan     schedule.Kind = iota // decide what comes next, and add its nodes
	kindDownload                      // download a source
	kindFetch                         // fetch the snapshot of a step from a store
	kindCheck                         // read all of a snapshot that was fetched
	kindPlace                         // check that a cached FETCH, COPY or WORKDIR fits the root
	kindMake                          // make the snapshot of a FETCH, COPY or WORKDIR
	kindRun                           // run a RUN, or capture a SNAPSHOT
	kindView                          // apply a snapshot to a view
	kindUndo                          // undo what has to leave the root
	kindApply                         // apply a snapshot to the root
	kindVerify                        // after that: the snapshot arrived as it was read
	kindCommit                        // commit what was applied
	kindPut                           // store a snapshot
	kindComplete                      // list the layers in the stores
)

// An Outcome is what became of a step that was built.
type Outcome struct {
	Changed bool // what follows it is not restored: see dag.Item.Decides
	Store   bool // its snapshot is put into the stores
}

// A Flow is the plan of a solve as nodes: what waits for what. It adds nodes as
// far as is known what there is to do; a node of kindPlan adds the next ones.
//
//   - Where nothing is to run, snapshots are applied as they arrive: fetch,
//     apply while it is readable, verify. If one is lost the root is rolled back.
//   - Otherwise all that is cached is fetched and checked first. A snapshot that is
//     lost makes its step, and what follows in its chain, one to Run: the plan is
//     made again, and more may be fetched.
//   - FETCH, COPY and WORKDIR place files by the names that they find in the root: make
//     waits for the download, and for what is built before in the chain. One that is
//     cached is checked there.
//   - RUN, and SNAPSHOT, look at the root: a node for each, after the node before it
//     in its layer's view, or of what the layer builds on. What precedes a RUN in its
//     view and has a snapshot already is applied to the view by a node of its own.
//     Layers that don't build on each other share no node.
//   - A RUN that is in no store, and a step whose snapshot cannot be had, decides
//     whether the cached steps that follow it in its chain are restored
//     (dag.Item.Decides). They are fetched when it has: they may be many times larger
//     than all else, and are of no use if it changes something.
//   - The root is changed last: undo, apply each step in order, commit.
//   - In place, running and applying are one sequence.
//   - A put waits for nothing, and nothing but complete waits for it.
type Flow struct {
	schedule.Schedule
	w  Work
	sv *survey.Survey

	BuildOnly bool // the root stays as it is: what is to run is built, and stored

	mu      sync.Mutex
	inPlace bool
	changed []*dag.Step // see Outcome.Changed
	asked   bool        // scratch that was not fetched
	decided map[*dag.Step]bool
	late    *losses                      // of what is fetched when a step has decided
	arrives map[*dag.Step]*schedule.Node // in a sequence: the ends of those fetches
	puts    []*schedule.Node
	sources map[*dag.Source]*schedule.Node
	views   []*survey.LayerView
}

// largest is how many bytes of snapshots are fetched at a time, and one that is
// larger by itself: enough for many small ones to hide each other's round trips,
// and few large ones, so that what is first can be applied first.
const largest = 64 << 20

// New returns a flow without nodes.
func New(w Work, sv *survey.Survey, jobs int) *Flow {
	f := &Flow{w: w, sv: sv, sources: make(map[*dag.Source]*schedule.Node), decided: make(map[*dag.Step]bool),
		late: new(losses), arrives: make(map[*dag.Step]*schedule.Node)}
	n := int64(max(1, jobs))
	f.Limits = schedule.Amounts{schedule.Network: max(16, n), schedule.Sources: n, schedule.CPU: n, schedule.InFlight: largest, schedule.Root: 1}
	return f
}

// Solve adds the first nodes of a solve.
func (f *Flow) Solve(items []*dag.Item) {
	f.download(items)
	f.plan(func(ctx context.Context) error {
		inPlace, err := f.w.ChooseSandbox()
		if err != nil {
			return err
		}
		if inPlace || f.toRun() {
			return f.restore(f.needed, f.build)
		}
		if !f.BuildOnly {
			f.stream()
		}
		return nil
	})
}

// Sequence adds the nodes of what is done with one item after the other, with nothing
// before it and nothing after: items are those that may have to be downloaded, needed
// returns those whose snapshots have to be here, and begin those that do is called with.
func (f *Flow) Sequence(items []*dag.Item, needed func() []*dag.Item, begin func(context.Context) ([]*dag.Item, error), do func(context.Context, *dag.Item) (Outcome, error)) error {
	f.download(items)
	return f.restore(needed, func(context.Context) error {
		f.plan(func(ctx context.Context) error {
			items, err := begin(ctx)
			if err == nil {
				f.sequence(items, do, nil)
			}
			return err
		})
		return nil
	})
}

// grace is how long a cancelled solve still stores what is finished: a directory
// has it long before; an upload is resumed by the next session. Whoever cancels
// waits for two seconds at most.
const grace = time.Second

// Run runs the nodes, and those that they add, and returns the first error.
func (f *Flow) Run(ctx context.Context) error {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	defer stop()
	return f.Schedule.Run(ctx, longer)
}

// plan adds a node that decides what comes after deps.
func (f *Flow) plan(decide func(context.Context) error, deps ...*schedule.Node) {
	f.Add(&schedule.Node{Kind: kindPlan, Run: func(ctx context.Context, _ *schedule.Node) error { return decide(ctx) }}, nil, deps...)
}

// download adds a node for each source that steps to run among the items need, so
// that it arrives while other things are done.
func (f *Flow) download(items []*dag.Item) {
	for _, it := range items {
		s := it.Step
		if s.Source != nil && it.State == dag.ToRun && f.sources[s.Source] == nil {
			f.sources[s.Source] = f.Add(&schedule.Node{Kind: kindDownload, Step: s, Needs: schedule.Amounts{schedule.Sources: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
				f.w.Download(ctx, s) // an error is the step's, which asks for the same again
				return nil
			}}, nil)
		}
	}
}

// losses are the snapshots that could not be had in one round of fetching.
type losses struct {
	mu     sync.Mutex
	keys   []key.Key
	others []key.Key       // those of them that the stores have otherwise than the root
	errs   []error         // by item
	stop   func(*dag.Item) // drops what has no use when one is lost; nil: nothing
	bad    []*dag.Step     // those that turned out to be nothing of their step while they were applied
	broken bool            // what was applied was read from a blob that arrived again
}

// expect makes room for the error of one more item, and returns its index.
func (l *losses) expect() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, nil)
	return len(l.errs) - 1
}

func (l *losses) any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.keys) > 0 || l.broken
}

func (f *Flow) lose(l *losses, i int, it *dag.Item, err error) {
	other := errors.Is(err, ErrOther)
	err = f.w.Lost(it, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys = append(l.keys, it.Key); other {
		l.others = append(l.others, it.Key)
	}
	l.errs[i] = err
	if l.stop != nil {
		l.stop(it)
	}
}

// fetch adds the node that fetches the snapshot of the i-th item.
func (f *Flow) fetch(l *losses, i int, it *dag.Item, deps ...*schedule.Node) *schedule.Node {
	n := &schedule.Node{Kind: kindFetch, Step: it.Step, Needs: schedule.Amounts{schedule.Network: 1, schedule.InFlight: min(f.sv.Found[it.Key].Size, largest)}}
	n.Run = func(ctx context.Context, n *schedule.Node) error {
		err := f.w.Fetch(ctx, it, func() { f.Read(n) }, func() { f.Release(n, schedule.InFlight) })
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			f.lose(l, i, it, err)
		}
		f.w.Abort(it.Step, err) // after that: what reads it ends now
		return ctx.Err()
	}
	return f.Add(n, nil, deps...)
}

// fetchAndCheck adds the nodes that fetch the snapshot of the i-th item, and check it.
func (f *Flow) fetchAndCheck(l *losses, i int, it *dag.Item, deps ...*schedule.Node) *schedule.Node {
	return f.Add(&schedule.Node{Kind: kindCheck, Step: it.Step, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
		if !f.w.Has(it.Step) {
			return nil // lost, or dropped
		}
		err := f.w.Check(ctx, it)
		if err != nil && ctx.Err() == nil {
			f.lose(l, i, it, err)
		}
		return ctx.Err()
	}}, nil, f.fetch(l, i, it, deps...))
}

// fetchLate is fetchAndCheck for an item that was not fetched with the others, since a
// step had to decide first: after that step's node; nil: it has decided.
func (f *Flow) fetchLate(it *dag.Item, after *schedule.Node) *schedule.Node {
	return f.fetchAndCheck(f.late, f.late.expect(), it, after)
}

// undecided returns, for each step of which a step before it in its chain has still to
// decide whether it is restored, the last such step.
func (f *Flow) undecided() map[*dag.Step]*dag.Step {
	f.mu.Lock()
	defer f.mu.Unlock()
	by := make(map[*dag.Step]*dag.Step)
	ends := make(map[*dag.Layer]*dag.Step)
	for i := range f.sv.Plan.Layers {
		pl := &f.sv.Plan.Layers[i]
		var last *dag.Step
		if !pl.Layer.Ordered {
			last = ends[pl.Layer.On]
		}
		for _, it := range pl.Items {
			if last != nil {
				by[it.Step] = last
			}
			if it.Decides && !f.decided[it.Step] {
				last = it.Step
			}
		}
		ends[pl.Layer] = last
	}
	return by
}

// appliesRoot selects what a solve that streams has to stop.
func appliesRoot(n *schedule.Node) bool {
	return n.Kind == kindUndo || n.Kind == kindApply || n.Kind == kindVerify
}

// restore fetches, and checks, what needed returns, again and again until nothing
// is lost. Then it goes on with next, which fetches what waits for a step to decide.
func (f *Flow) restore(needed func() []*dag.Item, next func(context.Context) error) error {
	inPlace, err := f.w.ChooseSandbox()
	if err != nil {
		return err
	}
	f.inPlace = inPlace
	items, waits := needed(), f.undecided()
	l := &losses{errs: make([]error, len(items))}
	var ends []*schedule.Node
	for i, it := range items {
		if waits[it.Step] == nil {
			ends = append(ends, f.fetchAndCheck(l, i, it))
		}
	}
	f.plan(func(ctx context.Context) error {
		f.w.ReportLost(l.errs)
		if len(l.keys) == 0 {
			return next(ctx)
		}
		if err := f.planAgain(ctx, l); err != nil {
			return err
		}
		return f.restore(needed, next)
	}, ends...)
	return nil
}

// stream fetches and applies at the same time, where nothing is to Run: each
// snapshot is applied after those before it, while the next ones arrive. The first
// that is not complete yet is read while it arrives: all of it is prepared that can
// be without touching the root, which waits until the snapshot is verified.
func (f *Flow) stream() {
	items := f.needed()
	l := &losses{errs: make([]error, len(items)), stop: func(*dag.Item) { f.Drop(appliesRoot) }}
	fetches := make(map[*dag.Step]*schedule.Node)
	partial := make(map[*dag.Step]bool)
	var all []*schedule.Node
	for _, it := range items {
		partial[it.Step] = f.w.Partial(it)
	}
	for i, it := range items {
		fetches[it.Step] = f.fetch(l, i, it)
		all = append(all, fetches[it.Step])
	}
	var first *schedule.Node
	if f.w.Undoes() && len(items) > 0 {
		first = fetches[items[0].Step] // until something can be done, the root stays as it is
	}
	prev := f.rootNode(kindUndo, nil, func(ctx context.Context) error { return f.w.Undo(ctx) }, nil, first)
	for _, it := range f.missing() {
		fetch := fetches[it.Step]
		reads, deps := fetch, []*schedule.Node{prev}
		if fetch != nil && !partial[it.Step] {
			reads, deps = nil, append(deps, fetch)
		}
		prev = f.rootNode(kindApply, it.Step, f.streamed(l, it, f.w.Apply), reads, deps...)
		prev = f.rootNode(kindVerify, it.Step, f.streamed(l, it, f.w.Verify), nil, prev, fetch)
	}
	// An apply that runs, while what waits for it was dropped, has the root until it ends.
	f.rootNode(kindPlan, nil, func(ctx context.Context) error {
		f.w.ReportLost(l.errs)
		if !l.any() {
			f.commit()
			return nil
		}
		if err := f.w.Rollback(); err != nil {
			return err
		}
		for _, s := range l.bad {
			f.w.Forget(s)
		}
		if len(l.keys) > 0 {
			if err := f.planAgain(ctx, l); err != nil {
				return err
			}
		}
		return f.restore(f.needed, f.build)
	}, nil, append(all, prev)...)
}

// streamed is part of applying an item whose snapshot may be lost meanwhile: that is
// no failure, and ends the applying.
func (f *Flow) streamed(l *losses, it *dag.Item, do func(context.Context, *dag.Item) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := do(ctx, it)
		var bad *InvalidError
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case errors.As(err, &bad):
			f.w.ReportLost([]error{f.w.Lost(bad.Item, bad.Err)})
			l.mu.Lock()
			l.keys, l.bad = append(l.keys, bad.Item.Key), append(l.bad, bad.Item.Step)
			l.mu.Unlock()
		case errors.Is(err, cache.ErrAborted):
			l.mu.Lock()
			l.broken = true
			l.mu.Unlock()
		default:
			return err
		}
		f.Drop(func(n *schedule.Node) bool { return appliesRoot(n) || n.Kind == kindFetch })
		return nil
	}
}

// rootNode adds a node that changes the root.
func (f *Flow) rootNode(k schedule.Kind, s *dag.Step, do func(context.Context) error, reads *schedule.Node, deps ...*schedule.Node) *schedule.Node {
	return f.Add(&schedule.Node{Kind: k, Step: s, Needs: schedule.Amounts{schedule.Root: 1}, Run: func(ctx context.Context, _ *schedule.Node) error { return do(ctx) }}, reads, deps...)
}

// commit adds the end of a solve after deps.
func (f *Flow) commit(deps ...*schedule.Node) {
	f.rootNode(kindCommit, nil, func(ctx context.Context) error {
		if err := f.w.Commit(ctx); err != nil {
			return err
		}
		f.complete()
		return nil
	}, nil, deps...)
}

// complete lists the layers in the stores, when what was built is there. An upload that was
// cut off is completed by the next solve.
func (f *Flow) complete() {
	f.Add(&schedule.Node{Kind: kindComplete, Run: func(ctx context.Context, _ *schedule.Node) error {
		f.w.Complete(ctx)
		return nil
	}}, nil, f.puts...)
}

// build builds the steps that are to run, and then changes the root.
func (f *Flow) build(context.Context) error {
	f.late = new(losses)
	if f.inPlace {
		f.rootNode(kindUndo, nil, func(ctx context.Context) error {
			if err := f.w.EnterRoot(ctx); err != nil {
				return err
			}
			f.sequence(f.missing(), f.w.StepInPlace, f.commit)
			return nil
		}, nil, f.prepareAll()...)
		return nil
	}
	f.late.stop = func(it *dag.Item) { f.leaveViews(it.Step.Layer) }
	f.buildInViews()
	return nil
}

// prepareAll adds a node for each FETCH and COPY that is to Run: until their files are
// here, the root stays as it is.
func (f *Flow) prepareAll() (all []*schedule.Node) {
	for _, it := range f.missing() {
		if s := it.Step; f.toMake(it) && s.Source != nil {
			all = append(all, f.Add(&schedule.Node{Kind: kindMake, Step: s, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
				return f.w.Prepare(ctx, s)
			}}, nil, f.sources[s.Source]))
		}
	}
	return all
}

// A chain is how far a layer is built: the nodes that what follows in it waits for.
type chain struct {
	view  *schedule.Node   // after which its view is as the layer leaves it
	built []*schedule.Node // which build, or fetch, what is in it
}

// buildInViews adds the nodes that run steps in the views of their layers, and that build
// the other ones, after which the root is changed.
func (f *Flow) buildInViews() {
	defer f.Together()()
	c := &chains{Flow: f, waits: f.undecided(), ran: make(map[*dag.Step]*schedule.Node), of: make(map[*dag.Layer]*chain)}
	for i := range f.sv.Plan.Layers {
		c.layer(&f.sv.Plan.Layers[i])
	}
	f.plan(func(ctx context.Context) error {
		again, err := f.reconsider(ctx)
		if err != nil {
			return err
		}
		if again {
			f.w.CloseViews()
			return f.restore(f.needed, f.build)
		}
		if f.BuildOnly {
			f.complete()
			return nil
		}
		prev := f.rootNode(kindUndo, nil, f.w.Undo, nil)
		for _, it := range f.missing() {
			prev = f.rootNode(kindApply, it.Step, func(ctx context.Context) error {
				if err := f.w.Apply(ctx, it); err != nil {
					return err
				}
				return f.w.Verify(ctx, it)
			}, nil, prev)
		}
		f.commit(prev)
		return nil
	}, c.ends...)
}

// chains adds the nodes of buildInViews, layer by layer in composition order.
type chains struct {
	*Flow
	waits map[*dag.Step]*dag.Step // Flow.undecided
	ran   map[*dag.Step]*schedule.Node
	of    map[*dag.Layer]*chain
	ends  []*schedule.Node
}

func (c *chains) layer(pl *dag.PlannedLayer) {
	l := pl.Layer
	ch := new(chain)
	if on := c.of[l.On]; on != nil {
		*ch = chain{on.view, slices.Clone(on.built)}
	}
	c.of[l] = ch
	inView := make(map[*dag.Step]bool)
	var v *survey.LayerView
	if i := slices.IndexFunc(c.views, func(v *survey.LayerView) bool { return v.Layer == l }); i >= 0 {
		v = c.views[i]
		for _, it := range v.Items {
			inView[it.Step] = true
		}
	}
	for i := range pl.Items {
		it := &pl.Items[i]
		if !it.Step.ChangesRoot() {
			continue
		}
		c.item(ch, it)
		if inView[it.Step] {
			c.see(ch, v, it)
		}
	}
}

// item adds the node that builds an item, or fetches it late, or checks that what is
// cached fits; a RUN is built by see.
func (c *chains) item(ch *chain, it *dag.Item) {
	s := it.Step
	var n *schedule.Node
	switch {
	case c.toMake(it) && !s.LooksAtRoot():
		n = c.Add(&schedule.Node{Kind: kindMake, Step: s, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
			out, err := c.w.Make(ctx, s)
			if errors.Is(err, ErrScratch) {
				c.askScratch(s.Layer)
				return nil
			}
			err = c.built(s, out, err)
			if out.Changed {
				c.leaveViews(s.Layer)
			}
			return err
		}}, nil, append(slices.Clip(ch.built), c.sources[s.Source])...)
		c.ran[s] = n
	case it.State == dag.Cached:
		if by := c.waits[s]; by != nil && !c.w.Has(s) {
			n = c.fetchLate(it, c.ran[by])
		}
		if s.IsPlaced() || c.sv.ChecksLate(it) {
			c.ends = append(c.ends, n) // also where the next one is dropped
			n = c.checkPlace(it, append(slices.Clip(ch.built), n)...)
		}
	}
	if n == nil {
		return
	}
	if s.IsPlaced() || c.sv.ChecksLate(it) {
		ch.built = nil // it waits for those
	}
	ch.built = append(slices.Clip(ch.built), n)
	c.ends = append(c.ends, n)
}

// checkPlace adds a node that checks whether a cached step fits the root.
func (c *chains) checkPlace(it *dag.Item, deps ...*schedule.Node) *schedule.Node {
	late := c.late
	i := late.expect()
	return c.Add(&schedule.Node{Kind: kindPlace, Step: it.Step, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
		if !c.w.Has(it.Step) {
			return nil // lost, or dropped
		}
		switch err := c.w.PlacedHere(ctx, it); {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, ErrScratch):
			c.askScratch(it.Step.Layer)
		default:
			c.lose(late, i, it, err)
		}
		return ctx.Err()
	}}, nil, deps...)
}

// askScratch has the scratch of a layer's steps fetched, and what is left to do in its
// views done again with that.
func (f *Flow) askScratch(l *dag.Layer) {
	f.mu.Lock()
	f.sv.AskScratch(l)
	f.asked = true
	f.mu.Unlock()
	f.leaveViews(l)
}

// see adds the node that runs an item in the layer's view, or applies it there.
func (c *chains) see(ch *chain, v *survey.LayerView, it *dag.Item) {
	s := it.Step
	if !c.toMake(it) || !s.LooksAtRoot() {
		ch.view = c.Add(&schedule.Node{Kind: kindView, Step: s, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
			err := c.w.ApplyTo(ctx, v, s)
			if bad := (*InvalidError)(nil); errors.As(err, &bad) && ctx.Err() == nil {
				c.w.Forget(s)
				c.lose(c.late, c.late.expect(), bad.Item, bad.Err)
				return nil
			}
			return err
		}}, nil, append(slices.Clip(ch.built), ch.view)...)
		c.ends = append(c.ends, ch.view)
		return
	}
	n := c.Add(&schedule.Node{Kind: kindRun, Step: s, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
		out, err := c.w.RunIn(ctx, v, s)
		err = c.built(s, out, err)
		if out.Changed {
			c.leaveViews(s.Layer)
		}
		return err
	}}, nil, ch.view, c.sources[s.Source])
	ch.view, ch.built, c.ran[s] = n, []*schedule.Node{n}, n
	c.ends = append(c.ends, n) // what follows it may be dropped
}

// built is what follows from a step that was built: its snapshot is put into the
// stores. Where it changed something, and the plan had it that what follows is cached
// if it does not, the plan is made again when what runs beside it has ended, and what
// was made is applied to new views.
func (f *Flow) built(s *dag.Step, out Outcome, err error) error {
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if out.Store {
		f.puts = append(f.puts, f.Add(&schedule.Node{Kind: kindPut, Step: s, Grace: true, Run: func(ctx context.Context, _ *schedule.Node) error {
			f.w.Put(ctx, s) // a store that fails reports that, and fails nothing
			return nil
		}}, nil))
	}
	if out.Changed {
		f.changed = append(f.changed, s)
	}
	f.decided[s] = true
	return nil
}

// leaveViews drops what is left to do in the views that a layer is in, and to fetch.
func (f *Flow) leaveViews(layer *dag.Layer) {
	f.Drop(func(n *schedule.Node) bool {
		switch n.Kind {
		case kindRun, kindView, kindFetch, kindMake, kindPlace:
		default:
			return false
		}
		for l := n.Step.Layer; l != nil; l = l.On {
			if l == layer {
				return true
			}
		}
		return false
	})
}

// sequence adds nodes that do something with one step after the other, and then end.
// What follows a step that decides is added when it has.
func (f *Flow) sequence(items []*dag.Item, do func(context.Context, *dag.Item) (Outcome, error), end func(deps ...*schedule.Node)) {
	defer f.Together()()
	f.fetchDecided(items)
	var deps []*schedule.Node
	for i, it := range items {
		n := &schedule.Node{Kind: kindApply, Step: it.Step, Needs: schedule.Amounts{schedule.Root: 1}}
		if it.State == dag.ToRun && it.Step.LooksAtRoot() {
			n.Kind = kindRun
		}
		n.Run = func(ctx context.Context, n *schedule.Node) error {
			if f.arrives[it.Step] != nil && !f.w.Has(it.Step) { // it was lost
				return f.resume(items[i:], do, end)
			}
			out, err := do(ctx, it)
			if lost := (*MisplacedError)(nil); errors.As(err, &lost) {
				f.lose(f.late, f.late.expect(), it, lost)
				return f.resume(items[i:], do, end)
			}
			if err := f.built(it.Step, out, err); err != nil || !it.Decides {
				return err
			}
			if out.Changed && f.inPlace {
				if err := f.w.CommitInPlace(it); err != nil {
					return err
				}
			}
			return f.resume(items[i+1:], do, end)
		}
		deps = []*schedule.Node{f.Add(n, nil, append(deps, f.arrives[it.Step], f.sources[it.Step.Source])...)}
		if it.Decides {
			return
		}
	}
	if end != nil {
		end(deps...)
	}
}

// fetchDecided fetches what nothing has to decide about any more.
func (f *Flow) fetchDecided(items []*dag.Item) {
	waits := f.undecided()
	for _, it := range items {
		if it.State == dag.Cached && waits[it.Step] == nil && f.arrives[it.Step] == nil && !f.w.Has(it.Step) {
			f.arrives[it.Step] = f.fetchLate(it, nil)
		}
	}
}

// resume goes on with a sequence when a step has decided, or a snapshot was lost. If
// the plan is another one then, it is made when nothing is fetched by the old one.
func (f *Flow) resume(items []*dag.Item, do func(context.Context, *dag.Item) (Outcome, error), end func(deps ...*schedule.Node)) error {
	f.mu.Lock()
	same := len(f.changed) == 0 && !f.late.any()
	f.mu.Unlock()
	if same {
		f.sequence(items, do, end)
		return nil
	}
	f.Drop(func(n *schedule.Node) bool { return n.Kind == kindApply || n.Kind == kindRun || n.Kind == kindCommit })
	f.plan(func(ctx context.Context) error {
		if _, err := f.reconsider(ctx); err != nil {
			return err
		}
		f.arrives = make(map[*dag.Step]*schedule.Node)
		rest := make([]*dag.Item, 0, len(items))
		for _, it := range items {
			rest = append(rest, f.sv.Plan.Item(it.Step))
		}
		f.download(rest)
		f.sequence(rest, do, end)
		return nil
	}, slices.Collect(maps.Values(f.arrives))...)
	return nil
}

// reconsider makes the plan again if a step changed something on which it depended
// whether what follows is restored, or if a snapshot was lost that was fetched then.
// Snapshots that are not used for it are forgotten.
func (f *Flow) reconsider(ctx context.Context) (again bool, err error) {
	f.mu.Lock()
	changed, asked := f.changed, f.asked
	f.changed, f.asked = nil, false
	f.mu.Unlock()
	lost := f.late
	f.late = &losses{stop: lost.stop}
	f.w.ReportLost(lost.errs)
	if len(changed) > 0 {
		before := f.sv.Plan
		f.sv.Change(changed...)
		f.forgetSince(before)
		f.w.Replanned()
	}
	if len(lost.keys) > 0 {
		err = f.planAgain(ctx, lost)
	}
	return asked || len(changed)+len(lost.keys) > 0, err
}

// forgetSince forgets the snapshots of steps that were cached in a plan before, and
// are to run now.
func (f *Flow) forgetSince(before *dag.Plan) {
	for _, it := range f.all() {
		if it.State == dag.ToRun && before.Item(it.Step).State == dag.Cached {
			f.w.Forget(it.Step)
		}
	}
}

// planAgain makes the plan again without snapshots that were lost. What is present
// after a step that is not has to be applied again.
func (f *Flow) planAgain(ctx context.Context, lost *losses) error {
	sv := f.sv
	defer f.forgetSince(sv.Plan)
	keys, err := f.w.Choose(ctx, lost.keys)
	if err != nil {
		return err
	}
	sv.Lose(keys...)
	after := lost.others
	cut := false
	for _, s := range survey.Order(sv.Plan.Graph) {
		switch here := sv.Answers.Present[s]; {
		case !here:
			cut = true
		case cut:
			after = append(after, sv.Plan.Keys.Step[s])
			delete(sv.Answers.Present, s)
		}
	}
	if len(after) == 0 {
		return nil
	}
	found, err := f.w.Find(ctx, sv.Answers.Present)
	if err != nil {
		return err
	}
	for _, k := range after {
		if d, ok := found[k]; ok {
			sv.Find(k, d)
		}
	}
	sv.Lose()
	return nil
}

// all returns the items of the plan, in composition order.
func (f *Flow) all() (items []*dag.Item) {
	for i := range f.sv.Plan.Layers {
		pl := &f.sv.Plan.Layers[i]
		for j := range pl.Items {
			items = append(items, &pl.Items[j])
		}
	}
	return items
}

// missing returns the items that are not present.
func (f *Flow) missing() []*dag.Item {
	return slices.DeleteFunc(f.all(), func(it *dag.Item) bool { return it.State == dag.Present })
}

// needed returns the items whose snapshots are needed and not there yet: of all
// cached steps, and of steps that are present, but have to be applied to a view.
func (f *Flow) needed() (items []*dag.Item) {
	if !f.inPlace {
		f.views = f.sv.Views(f.toMake)
	}
	for _, it := range f.all() {
		if it.State == dag.Cached && !f.w.Has(it.Step) {
			items = append(items, it)
		}
	}
	for _, v := range f.views {
		for _, it := range v.Items {
			if it.State == dag.Present && !f.w.Has(it.Step) {
				items = append(items, it)
			}
		}
	}
	if !f.inPlace && !f.toRun() {
		return items
	}
	wanted := f.sv.WantedScratch(f.inPlace)
	if !f.inPlace {
		f.sv.AddNames(wanted)
	}
	for s := range wanted {
		if it := f.sv.Plan.Item(s); !f.w.Has(s) && !slices.Contains(items, it) {
			items = append(items, it)
		}
	}
	return items
}

// toRun reports whether a step that changes the root is to run.
func (f *Flow) toRun() bool {
	return slices.ContainsFunc(f.all(), func(it *dag.Item) bool { return it.State == dag.ToRun && it.Step.ChangesRoot() })
}

// toMake reports whether a step is to run and was not yet.
func (f *Flow) toMake(it *dag.Item) bool { return it.State == dag.ToRun && !f.w.Has(it.Step) }

// ErrOther says that the stores have another snapshot of a step than the root.
var ErrOther = errors.New("another snapshot than the root has")

// ErrScratch says that where a step's files belong depends on scratch of steps before it
// that was not fetched.
var ErrScratch = errors.New("scratch was not fetched")

// An InvalidError says that what a store has of a step turned out to be nothing
// of it while it was applied.
type InvalidError struct {
	Item *dag.Item
	Err  error
}

func (e *InvalidError) Error() string { return fmt.Sprintf("%s: %v", e.Item.Step.Pos(), e.Err) }

func (e *InvalidError) Unwrap() error { return e.Err }

// A MisplacedError says that a cached step does not fit the root that it finds here.
type MisplacedError struct{ Err error }

func (e *MisplacedError) Error() string { return e.Err.Error() }

func (e *MisplacedError) Unwrap() error { return e.Err }
