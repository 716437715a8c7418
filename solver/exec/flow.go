package exec

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/exec/internal/schedule"
	"github.com/clayer/clayer/solver/internal/survey"
)

// work is what the nodes of a flow do. A builder does it with stores, a sandbox
// and a root; tests count.
type work interface {
	sandbox() (inPlace bool, err error) // chooses one, once a step is to run
	download(ctx context.Context, s *dag.Step)

	has(s *dag.Step) bool         // its snapshot is on this machine
	forget(s *dag.Step)           // its snapshot is of no use
	partial(it *dag.Item) bool    // prepares for it to be read while it arrives, if it can be
	abort(s *dag.Step, err error) // it does not arrive
	fetch(ctx context.Context, it *dag.Item, readable, whole func()) error
	check(ctx context.Context, it *dag.Item) error
	placedHere(ctx context.Context, it *dag.Item) error // whether a cached FETCH, COPY or WORKDIR fits the root

	prepare(ctx context.Context, s *dag.Step) error // returns what make would fail by before it looks at the root
	make(ctx context.Context, s *dag.Step) (outcome, error)
	runIn(ctx context.Context, v *survey.LayerView, s *dag.Step) (outcome, error)
	applyTo(ctx context.Context, v *survey.LayerView, s *dag.Step) error
	closeViews() // all that are open
	put(ctx context.Context, s *dag.Step)

	undoes() bool // there is something to undo
	undo(ctx context.Context) error
	apply(ctx context.Context, it *dag.Item) error
	verify(ctx context.Context, it *dag.Item) error // after apply, when all of the snapshot has arrived
	rollback() error
	commit(ctx context.Context) error
	complete(ctx context.Context)

	enterRoot(ctx context.Context) error                                                   // in place: what apply is preceded by
	stepInPlace(ctx context.Context, it *dag.Item) (outcome, error)                        // runs it, or applies it
	commitInPlace(it *dag.Item) error                                                      // with the item, and all before it
	find(ctx context.Context, present map[*dag.Step]bool) (map[key.Key]cache.Found, error) // what the stores have
	lost(it *dag.Item, err error) error                                                    // reports it, or returns what is reported with others
	report(lost []error)
	replanned() // reports the plan, as a step has decided it
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

// outcome is what became of a step that was built.
type outcome struct {
	changed bool // what follows it is not restored: see dag.Item.Decides
	store   bool // its snapshot is put into the stores
}

// A flow is the plan of a solve as nodes: what waits for what. It adds nodes as
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
//   - A RUN that is in no store decides whether the cached steps that follow it in its
//     chain are restored (dag.Item.Decides). They are fetched when it has: they may be
//     many times larger than all else, and are of no use if it changes something.
//   - The root is changed last: undo, apply each step in order, commit.
//   - In place, running and applying are one sequence.
//   - A put waits for nothing, and nothing but complete waits for it.
type flow struct {
	schedule.Schedule
	w  work
	sv *survey.Survey

	mu      sync.Mutex
	inPlace bool
	changed []*dag.Step // see outcome.changed
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

func newFlow(w work, sv *survey.Survey, jobs int) *flow {
	f := &flow{w: w, sv: sv, sources: make(map[*dag.Source]*schedule.Node), decided: make(map[*dag.Step]bool),
		late: new(losses), arrives: make(map[*dag.Step]*schedule.Node)}
	n := int64(max(1, jobs))
	f.Limits = schedule.Amounts{schedule.Network: max(16, n), schedule.Sources: n, schedule.CPU: n, schedule.InFlight: largest, schedule.Root: 1}
	return f
}

// solve adds the first nodes of a solve.
func (f *flow) solve(items []*dag.Item) {
	f.download(items)
	f.plan(func(ctx context.Context) error {
		inPlace, err := f.w.sandbox()
		if err != nil {
			return err
		}
		if inPlace || f.toRun() {
			return f.restore(f.needed, f.build)
		}
		f.stream()
		return nil
	})
}

// plan adds a node that decides what comes after deps.
func (f *flow) plan(decide func(context.Context) error, deps ...*schedule.Node) *schedule.Node {
	return f.Add(&schedule.Node{Kind: kindPlan, Run: func(ctx context.Context, _ *schedule.Node) error { return decide(ctx) }}, nil, deps...)
}

// download adds a node for each source that steps to run among the items need, so
// that it arrives while other things are done.
func (f *flow) download(items []*dag.Item) {
	for _, it := range items {
		s := it.Step
		if s.Source != nil && it.State == dag.ToRun && f.sources[s.Source] == nil {
			f.sources[s.Source] = f.Add(&schedule.Node{Kind: kindDownload, Step: s, Needs: schedule.Amounts{schedule.Sources: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
				f.w.download(ctx, s) // an error is the step's, which asks for the same again
				return nil
			}}, nil)
		}
	}
}

// losses are the snapshots that could not be had in one round of fetching.
type losses struct {
	mu     sync.Mutex
	keys   []key.Key
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

func (f *flow) lose(l *losses, i int, it *dag.Item, err error) {
	err = f.w.lost(it, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys, l.errs[i] = append(l.keys, it.Key), err
	if l.stop != nil {
		l.stop(it)
	}
}

// fetch adds the node that fetches the snapshot of the i-th item.
func (f *flow) fetch(l *losses, i int, it *dag.Item, deps ...*schedule.Node) *schedule.Node {
	n := &schedule.Node{Kind: kindFetch, Step: it.Step, Needs: schedule.Amounts{schedule.Network: 1, schedule.InFlight: min(f.sv.Found[it.Key].Size, largest)}}
	n.Run = func(ctx context.Context, n *schedule.Node) error {
		err := f.w.fetch(ctx, it, func() { f.Read(n) }, func() { f.Release(n, schedule.InFlight) })
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			f.lose(l, i, it, err)
		}
		f.w.abort(it.Step, err) // after that: what reads it ends now
		return ctx.Err()
	}
	return f.Add(n, nil, deps...)
}

// fetchAndCheck adds the nodes that fetch the snapshot of the i-th item, and check it.
func (f *flow) fetchAndCheck(l *losses, i int, it *dag.Item, deps ...*schedule.Node) *schedule.Node {
	return f.Add(&schedule.Node{Kind: kindCheck, Step: it.Step, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
		if !f.w.has(it.Step) {
			return nil // lost, or dropped
		}
		err := f.w.check(ctx, it)
		if err != nil && ctx.Err() == nil {
			f.lose(l, i, it, err)
		}
		return ctx.Err()
	}}, nil, f.fetch(l, i, it, deps...))
}

// fetchLate is fetchAndCheck for an item that was not fetched with the others, since a
// step had to decide first: after that step's node; nil: it has decided.
func (f *flow) fetchLate(it *dag.Item, after *schedule.Node) *schedule.Node {
	return f.fetchAndCheck(f.late, f.late.expect(), it, after)
}

// undecided returns, for each step of which a step before it in its chain has still to
// decide whether it is restored, the last such step.
func (f *flow) undecided() map[*dag.Step]*dag.Step {
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
func (f *flow) restore(needed func() []*dag.Item, next func(context.Context) error) error {
	inPlace, err := f.w.sandbox()
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
		f.w.report(l.errs)
		if len(l.keys) == 0 {
			return next(ctx)
		}
		if err := f.planAgain(ctx, l.keys...); err != nil {
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
func (f *flow) stream() {
	items := f.needed()
	l := &losses{errs: make([]error, len(items)), stop: func(*dag.Item) { f.Drop(appliesRoot) }}
	fetches := make(map[*dag.Step]*schedule.Node)
	partial := make(map[*dag.Step]bool)
	var all []*schedule.Node
	for _, it := range items {
		partial[it.Step] = f.w.partial(it)
	}
	for i, it := range items {
		fetches[it.Step] = f.fetch(l, i, it)
		all = append(all, fetches[it.Step])
	}
	var first *schedule.Node
	if f.w.undoes() && len(items) > 0 {
		first = fetches[items[0].Step] // until something can be done, the root stays as it is
	}
	prev := f.rootNode(kindUndo, nil, func(ctx context.Context) error { return f.w.undo(ctx) }, nil, first)
	for _, it := range f.missing() {
		fetch := fetches[it.Step]
		reads, deps := fetch, []*schedule.Node{prev}
		if fetch != nil && !partial[it.Step] {
			reads, deps = nil, append(deps, fetch)
		}
		prev = f.rootNode(kindApply, it.Step, f.streamed(l, it, f.w.apply), reads, deps...)
		prev = f.rootNode(kindVerify, it.Step, f.streamed(l, it, f.w.verify), nil, prev, fetch)
	}
	// An apply that runs, while what waits for it was dropped, has the root until it ends.
	f.rootNode(kindPlan, nil, func(ctx context.Context) error {
		f.w.report(l.errs)
		if !l.any() {
			f.commit()
			return nil
		}
		if err := f.w.rollback(); err != nil {
			return err
		}
		for _, s := range l.bad {
			f.w.forget(s)
		}
		if len(l.keys) > 0 {
			if err := f.planAgain(ctx, l.keys...); err != nil {
				return err
			}
		}
		return f.restore(f.needed, f.build)
	}, nil, append(all, prev)...)
}

// streamed is part of applying an item whose snapshot may be lost meanwhile: that is
// no failure, and ends the applying.
func (f *flow) streamed(l *losses, it *dag.Item, do func(context.Context, *dag.Item) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := do(ctx, it)
		var bad *invalidSnapshot
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case errors.As(err, &bad):
			f.w.report([]error{unusable(bad.item, bad.err)})
			l.mu.Lock()
			l.keys, l.bad = append(l.keys, bad.item.Key), append(l.bad, bad.item.Step)
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
func (f *flow) rootNode(k schedule.Kind, s *dag.Step, do func(context.Context) error, reads *schedule.Node, deps ...*schedule.Node) *schedule.Node {
	return f.Add(&schedule.Node{Kind: k, Step: s, Needs: schedule.Amounts{schedule.Root: 1}, Run: func(ctx context.Context, _ *schedule.Node) error { return do(ctx) }}, reads, deps...)
}

// commit adds the end of a solve after deps.
func (f *flow) commit(deps ...*schedule.Node) {
	f.rootNode(kindCommit, nil, func(ctx context.Context) error {
		if err := f.w.commit(ctx); err != nil {
			return err
		}
		// An upload that was cut off is completed by the next solve.
		f.Add(&schedule.Node{Kind: kindComplete, Run: func(ctx context.Context, _ *schedule.Node) error {
			f.w.complete(ctx)
			return nil
		}}, nil, f.puts...)
		return nil
	}, nil, deps...)
}

// build builds the steps that are to run, and then changes the root.
func (f *flow) build(context.Context) error {
	f.late = new(losses)
	if f.inPlace {
		f.rootNode(kindUndo, nil, func(ctx context.Context) error {
			if err := f.w.enterRoot(ctx); err != nil {
				return err
			}
			f.sequence(f.missing(), f.w.stepInPlace, f.commit)
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
func (f *flow) prepareAll() (all []*schedule.Node) {
	for _, it := range f.missing() {
		if s := it.Step; f.toMake(it) && s.Source != nil {
			all = append(all, f.Add(&schedule.Node{Kind: kindMake, Step: s, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
				return f.w.prepare(ctx, s)
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
func (f *flow) buildInViews() {
	defer f.Together()()
	c := &chains{flow: f, waits: f.undecided(), ran: make(map[*dag.Step]*schedule.Node), of: make(map[*dag.Layer]*chain)}
	for i := range f.sv.Plan.Layers {
		c.layer(&f.sv.Plan.Layers[i])
	}
	f.plan(func(ctx context.Context) error {
		again, err := f.reconsider(ctx)
		if err != nil {
			return err
		}
		if again {
			f.w.closeViews()
			return f.restore(f.needed, f.build)
		}
		prev := f.rootNode(kindUndo, nil, f.w.undo, nil)
		for _, it := range f.missing() {
			prev = f.rootNode(kindApply, it.Step, func(ctx context.Context) error {
				if err := f.w.apply(ctx, it); err != nil {
					return err
				}
				return f.w.verify(ctx, it)
			}, nil, prev)
		}
		f.commit(prev)
		return nil
	}, c.ends...)
}

// chains adds the nodes of buildInViews, layer by layer in composition order.
type chains struct {
	*flow
	waits map[*dag.Step]*dag.Step // flow.undecided
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
			out, err := c.w.make(ctx, s)
			return c.built(s, out, err)
		}}, nil, append(slices.Clip(ch.built), c.sources[s.Source])...)
	case it.State == dag.Cached:
		if by := c.waits[s]; by != nil && !c.w.has(s) {
			n = c.fetchLate(it, c.ran[by])
		}
		if s.IsPlaced() {
			c.ends = append(c.ends, n) // also where the next one is dropped
			n = c.checkPlace(it, append(slices.Clip(ch.built), n)...)
		}
	}
	if n == nil {
		return
	}
	if s.IsPlaced() {
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
		if !c.w.has(it.Step) {
			return nil // lost, or dropped
		}
		if err := c.w.placedHere(ctx, it); err != nil && ctx.Err() == nil {
			c.lose(late, i, it, err)
		}
		return ctx.Err()
	}}, nil, deps...)
}

// see adds the node that runs an item in the layer's view, or applies it there.
func (c *chains) see(ch *chain, v *survey.LayerView, it *dag.Item) {
	s := it.Step
	if !c.toMake(it) || !s.LooksAtRoot() {
		ch.view = c.Add(&schedule.Node{Kind: kindView, Step: s, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
			return c.w.applyTo(ctx, v, s)
		}}, nil, append(slices.Clip(ch.built), ch.view)...)
		c.ends = append(c.ends, ch.view)
		return
	}
	n := c.Add(&schedule.Node{Kind: kindRun, Step: s, Needs: schedule.Amounts{schedule.CPU: 1}, Run: func(ctx context.Context, _ *schedule.Node) error {
		out, err := c.w.runIn(ctx, v, s)
		err = c.built(s, out, err)
		if out.changed {
			c.leaveViews(s.Layer)
		}
		return err
	}}, nil, ch.view)
	ch.view, ch.built, c.ran[s] = n, []*schedule.Node{n}, n
	c.ends = append(c.ends, n) // what follows it may be dropped
}

// built is what follows from a step that was built: its snapshot is put into the
// stores. Where it changed something, and the plan had it that what follows is cached
// if it does not, the plan is made again when what runs beside it has ended, and what
// was made is applied to new views.
func (f *flow) built(s *dag.Step, out outcome, err error) error {
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if out.store {
		f.puts = append(f.puts, f.Add(&schedule.Node{Kind: kindPut, Step: s, Grace: true, Run: func(ctx context.Context, _ *schedule.Node) error {
			f.w.put(ctx, s) // a store that fails reports that, and fails nothing
			return nil
		}}, nil))
	}
	if out.changed {
		f.changed = append(f.changed, s)
	}
	f.decided[s] = true
	return nil
}

// leaveViews drops what is left to do in the views that a layer is in, and to fetch.
func (f *flow) leaveViews(layer *dag.Layer) {
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
func (f *flow) sequence(items []*dag.Item, do func(context.Context, *dag.Item) (outcome, error), end func(deps ...*schedule.Node), deps ...*schedule.Node) {
	defer f.Together()()
	f.fetchDecided(items)
	for i, it := range items {
		n := &schedule.Node{Kind: kindApply, Step: it.Step, Needs: schedule.Amounts{schedule.Root: 1}}
		if it.State == dag.ToRun && it.Step.LooksAtRoot() {
			n.Kind = kindRun
		}
		n.Run = func(ctx context.Context, n *schedule.Node) error {
			if f.arrives[it.Step] != nil && !f.w.has(it.Step) { // it was lost
				return f.resume(ctx, items[i:], do, end)
			}
			out, err := do(ctx, it)
			if lost := (*misplacedError)(nil); errors.As(err, &lost) {
				f.lose(f.late, f.late.expect(), it, lost)
				return f.resume(ctx, items[i:], do, end)
			}
			if err := f.built(it.Step, out, err); err != nil || !it.Decides {
				return err
			}
			if out.changed && f.inPlace {
				if err := f.w.commitInPlace(it); err != nil {
					return err
				}
			}
			return f.resume(ctx, items[i+1:], do, end)
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
func (f *flow) fetchDecided(items []*dag.Item) {
	waits := f.undecided()
	for _, it := range items {
		if it.State == dag.Cached && waits[it.Step] == nil && f.arrives[it.Step] == nil && !f.w.has(it.Step) {
			f.arrives[it.Step] = f.fetchLate(it, nil)
		}
	}
}

// resume goes on with a sequence when a step has decided, or a snapshot was lost. If
// the plan is another one then, it is made when nothing is fetched by the old one.
func (f *flow) resume(ctx context.Context, items []*dag.Item, do func(context.Context, *dag.Item) (outcome, error), end func(deps ...*schedule.Node)) error {
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
func (f *flow) reconsider(ctx context.Context) (again bool, err error) {
	f.mu.Lock()
	changed := f.changed
	f.changed = nil
	f.mu.Unlock()
	lost := f.late
	f.late = &losses{stop: lost.stop}
	f.w.report(lost.errs)
	if len(changed) > 0 {
		before := f.sv.Plan
		f.sv.Change(changed...)
		f.forgetSince(before)
		f.w.replanned()
	}
	if len(lost.keys) > 0 {
		err = f.planAgain(ctx, lost.keys...)
	}
	return len(changed)+len(lost.keys) > 0, err
}

// forgetSince forgets the snapshots of steps that were cached in a plan before, and
// are to run now.
func (f *flow) forgetSince(before *dag.Plan) {
	for _, it := range f.all() {
		if it.State == dag.ToRun && before.Item(it.Step).State == dag.Cached {
			f.w.forget(it.Step)
		}
	}
}

// planAgain makes the plan again without snapshots that were lost. What is present
// after a step that is not has to be applied again.
func (f *flow) planAgain(ctx context.Context, lost ...key.Key) error {
	sv := f.sv
	defer f.forgetSince(sv.Plan)
	sv.Lose(lost...)
	var after []key.Key
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
	found, err := f.w.find(ctx, sv.Answers.Present)
	if err != nil {
		return err
	}
	for _, k := range after {
		if d, ok := found[k]; ok {
			sv.Found[k] = d
			sv.Answers.Cached[k] = dag.Found{Store: d.Store, Size: d.Size}
		}
	}
	sv.Lose()
	return nil
}

// all returns the items of the plan, in composition order.
func (f *flow) all() (items []*dag.Item) {
	for i := range f.sv.Plan.Layers {
		pl := &f.sv.Plan.Layers[i]
		for j := range pl.Items {
			items = append(items, &pl.Items[j])
		}
	}
	return items
}

// missing returns the items that are not present.
func (f *flow) missing() []*dag.Item {
	return slices.DeleteFunc(f.all(), func(it *dag.Item) bool { return it.State == dag.Present })
}

// needed returns the items whose snapshots are needed and not there yet: of all
// cached steps, and of steps that are present, but have to be applied to a view.
func (f *flow) needed() (items []*dag.Item) {
	if !f.inPlace {
		f.views = f.sv.Views(f.toMake)
	}
	for _, it := range f.all() {
		if it.State == dag.Cached && !f.w.has(it.Step) {
			items = append(items, it)
		}
	}
	for _, v := range f.views {
		for _, it := range v.Items {
			if it.State == dag.Present && !f.w.has(it.Step) {
				items = append(items, it)
			}
		}
	}
	if !f.inPlace && !f.toRun() {
		return items
	}
	for s := range f.sv.WantedScratch() {
		if it := f.sv.Plan.Item(s); !f.w.has(s) && !slices.Contains(items, it) {
			items = append(items, it)
		}
	}
	return items
}

// toRun reports whether a step that changes the root is to run.
func (f *flow) toRun() bool {
	return slices.ContainsFunc(f.all(), func(it *dag.Item) bool { return it.State == dag.ToRun && it.Step.ChangesRoot() })
}

// toMake reports whether a step is to run and was not yet.
func (f *flow) toMake(it *dag.Item) bool { return it.State == dag.ToRun && !f.w.has(it.Step) }
