package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/rootfs/record"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
	"github.com/clayer/clayer/solver/sandbox/overlay"
	"github.com/clayer/clayer/solver/tree"
)

// A builder carries one solve from its plan to the root.
type builder struct {
	Config
	root *rootfs.Root
	sv   *Survey
	sb   *sandbox.Sandbox
	work string // the folder for scratch; "": the root's

	mu     sync.Mutex
	blobs  map[*dag.Step]*blob // of all steps that are not present, as they come
	stored int                 // steps that were built and stored
	// changed are steps that ran, decide what becomes of what follows them, and changed
	// something.
	changed []*dag.Step
	views   map[*dag.Layer]*layerView
	order   []*dag.Layer // those with a view, in composition order

	// In place alone: what is in the root as no step that stays has left it,
	// and what a RUN that failed did all the same.
	dirty   []string
	failed  snapshot.Changes
	lock    *rootfs.Lock
	tx      int  // the last transaction before a RUN
	running bool // one was announced, and its record is not committed yet

	arrived  map[*dag.Step]chan struct{} // while they are applied as they come: closed when a snapshot is there
	fetching map[*dag.Step]*cache.Blob   // of the same, those that are applied while they come

	incomplete []error // what could not be applied, or undone, while the rest was

	puts         errgroup.Group // snapshots on their way into the stores
	putting      context.Context
	stopPrefetch context.CancelFunc
	prefetching  sync.WaitGroup
}

// A layerView is the view in which a layer's steps run, or are laid over the
// root for those of the layers that build on it.
type layerView struct {
	mu     sync.Mutex // a view is used by one goroutine at a time
	view   sandbox.Layered
	from   *dag.Layer // whose view this one begins as; nil: the root, without what is reverted
	heirs  int        // how many layers begin as this one ends
	shared bool       // it is from's view itself: this layer is its only heir

	// Of a view that begins as the root: the applies that are taken back in
	// it, the last ones of the log. A step must not see what a later layer, or
	// what stood in its place before, has made: it would capture too little.
	revert []record.Event
	lower  map[key.Key]bool // the steps that stay, and so are in the view from the beginning
}

// build runs the steps that are to run. The nodes of its schedule:
//
//   - FETCH, COPY and WORKDIR are functions of their source and dest alone: a
//     node without dependencies makes the snapshot.
//   - RUN, and SNAPSHOT, look at the root: a node for each, behind the node
//     before it in the layer's view, or of what the layer builds on.
//   - What stands before a RUN in its view and has a snapshot already (it was
//     restored, or is a FETCH) is laid over the view by a node of its own.
//
// Layers that don't build on each other share no node, so they are built side
// by side, unless the sandbox cannot isolate them.
//
// Where a step changed something, and the plan had it that what follows is cached if
// it does not, the rest of its view is left to another round, in which what was made
// is laid over new views.
func (b *builder) build(ctx context.Context) error {
	for {
		if err := b.buildRound(ctx); err != nil || !b.reconsider() {
			return err
		}
		b.closeViews()
		if err := b.restore(ctx); err != nil {
			return err
		}
	}
}

func (b *builder) buildRound(ctx context.Context) error {
	var s schedule
	made := b.bringAll(&s)
	order := b.order
	last := make(map[*dag.Layer]*node) // the node after which a layer's view is as the layer leaves it
	for _, l := range order {
		lv := b.views[l]
		prev := last[lv.from]
		for _, it := range b.inView(l) {
			if b.toMake(it) && looksAtRoot(it.Step) {
				prev = s.add(b.unlessChanged(l, func(ctx context.Context) error { return b.step(ctx, it.Step, b.inLayerView) }), prev)
				continue
			}
			prev = s.add(b.unlessChanged(l, func(ctx context.Context) error { return b.lay(ctx, it.Step) }), prev, made[it.Step])
		}
		last[l] = prev
	}
	return s.run(ctx, b.Jobs)
}

// toMake reports whether a step is to run and was not yet.
func (b *builder) toMake(it *dag.Item) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return it.State == dag.ToRun && b.blobs[it.Step] == nil
}

// unlessChanged does nothing in a view in which a step changed what is to follow it.
func (b *builder) unlessChanged(l *dag.Layer, run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		b.mu.Lock()
		skip := slices.ContainsFunc(b.changed, func(s *dag.Step) bool {
			for on := l; on != nil; on = on.On {
				if on == s.Layer {
					return true
				}
			}
			return false
		})
		b.mu.Unlock()
		if skip {
			return nil
		}
		return run(ctx)
	}
}

// reconsider plans anew if a step changed something on which it depended whether
// what follows is restored. The snapshots that are not used for it are forgotten.
func (b *builder) reconsider() bool {
	if len(b.changed) == 0 {
		return false
	}
	before := b.sv.Plan
	b.sv.change(b.changed...)
	b.changed = nil
	for _, pl := range b.sv.Plan.Layers {
		for _, it := range pl.Items {
			if it.State == dag.ToRun && before.Item(it.Step).State == dag.Cached {
				b.dropBlob(it.Step)
			}
		}
	}
	return true
}

// bringAll adds a node for each FETCH, COPY and WORKDIR that is to run.
func (b *builder) bringAll(s *schedule) map[*dag.Step]*node {
	made := make(map[*dag.Step]*node)
	for _, pl := range b.sv.Plan.Layers {
		for _, it := range pl.Items {
			if b.toMake(&it) && it.Step.ChangesRoot() && !looksAtRoot(it.Step) {
				made[it.Step] = s.add(func(ctx context.Context) error { return b.step(ctx, it.Step, b.bring) })
			}
		}
	}
	return made
}

// looksAtRoot reports whether a step's snapshot depends on the root, so that
// it has to be made in a view.
func looksAtRoot(s *dag.Step) bool {
	switch s.Instr.(type) {
	case *frontend.Run, *frontend.Snapshot:
		return true
	}
	return false
}

// planViews decides which layers need a view: those with a step that looks at
// the root, and those that they build on as far as they are not in it. order
// has them in composition order.
func (b *builder) planViews() {
	b.views = make(map[*dag.Layer]*layerView)
	need := make(map[*dag.Layer]bool)
	for i := range b.sv.Plan.Layers {
		pl := &b.sv.Plan.Layers[i]
		for _, it := range pl.Items {
			if b.toMake(&it) && looksAtRoot(it.Step) {
				for l := pl.Layer; l != nil; l = l.On {
					need[l] = true
				}
				break
			}
		}
	}
	b.order = nil
	for _, l := range b.sv.Plan.Graph.Layers {
		if !need[l] {
			continue
		}
		lv := &layerView{}
		for on := l.On; on != nil && lv.from == nil; on = on.On {
			if b.views[on] != nil {
				lv.from = on
			}
		}
		if lv.from != nil {
			lv.lower = b.views[lv.from].lower
		} else {
			lv.lower, lv.revert = b.lower(l)
		}
		if len(b.absent(l, lv)) == 0 {
			continue // it is in the root as it should be seen
		}
		if lv.from != nil {
			b.views[lv.from].heirs++
		}
		b.views[l] = lv
		b.order = append(b.order, l)
	}
	for _, lv := range b.views {
		lv.shared = lv.from != nil && b.views[lv.from].heirs == 1
	}
}

// lower divides the log of the root into what a layer's steps should see there,
// as far as that is its beginning, and the rest.
func (b *builder) lower(l *dag.Layer) (stay map[key.Key]bool, revert []record.Event) {
	below := make(map[key.Key]bool)
	for ; l != nil; l = l.On {
		for _, s := range l.Steps {
			if it := b.sv.Plan.Item(s); it.State == dag.Present {
				below[it.Key] = true
			}
		}
	}
	stay = make(map[key.Key]bool)
	for i, ev := range b.sv.State.Log {
		if !below[ev.Key] {
			return stay, b.sv.State.Log[i:]
		}
		stay[ev.Key] = true
	}
	return stay, nil
}

// absent returns the items of a layer that change the root and are not in its
// view from the beginning.
func (b *builder) absent(l *dag.Layer, lv *layerView) []*dag.Item {
	var items []*dag.Item
	for _, s := range l.Steps {
		if it := b.sv.Plan.Item(s); s.ChangesRoot() && !lv.lower[it.Key] {
			items = append(items, it)
		}
	}
	return items
}

// inView returns the items that take place in the layer's view: all that are
// absent, up to the last that looks at the root if no other layer begins there.
func (b *builder) inView(l *dag.Layer) []*dag.Item {
	items := b.absent(l, b.views[l])
	if b.views[l].heirs > 0 {
		return items
	}
	for len(items) > 0 {
		if it := items[len(items)-1]; b.toMake(it) && looksAtRoot(it.Step) {
			break
		}
		items = items[:len(items)-1]
	}
	return items
}

// Engines are the sandboxes that steps run in, the best first.
var Engines = []sandbox.Engine{overlay.Engine, inplace.Engine}

// openSandbox chooses the sandbox, once it is known that something is to run.
func (b *builder) openSandbox() error {
	if b.sb != nil || !Runs(b.sv.Plan) {
		return nil
	}
	work, err := b.root.WorkDir()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	opt := b.Sandbox
	opt.Work = work
	sb, err := sandbox.Choose(b.Kind, opt, Engines...)
	if errors.Is(err, sandbox.ErrUnavailable) && b.Kind == "overlay" {
		err = fmt.Errorf("%w\n  --sandbox=inplace, or auto, runs on the root itself", err)
	}
	if err != nil {
		return err
	}
	b.sb = sb
	b.Report.Emit(report.Event{Kind: report.Sandbox, Text: sb.String()})
	return nil
}

// Runs reports whether a step of the plan that looks at the root is to run.
func Runs(p *dag.Plan) bool {
	return slices.ContainsFunc(p.Layers, func(pl dag.PlannedLayer) bool { return runs(&pl) })
}

// direct reports whether RUN changes the root itself.
func (b *builder) direct() bool { return b.sb != nil && b.sb.InPlace != nil }

// use calls f with the layer's view, which is made at its first use.
func (b *builder) use(ctx context.Context, l *dag.Layer, f func(sandbox.Layered) error) error {
	lv := b.views[l]
	lv.mu.Lock()
	defer lv.mu.Unlock()
	if lv.view == nil {
		view, err := b.open(ctx, lv)
		if err != nil {
			return err
		}
		lv.view = view
	}
	return f(lv.view)
}

func (b *builder) open(ctx context.Context, lv *layerView) (view sandbox.Layered, err error) {
	if lv.from == nil {
		return b.openReverted(ctx, lv.revert)
	}
	err = b.use(ctx, lv.from, func(from sandbox.Layered) error {
		if view = from; lv.shared {
			return nil
		}
		view, err = from.Clone(ctx)
		return err
	})
	return view, err
}

// openReverted returns a view of the root without the given applies.
func (b *builder) openReverted(ctx context.Context, events []record.Event) (sandbox.Layered, error) {
	view, err := b.sb.Layered(ctx)
	if err != nil || len(events) == 0 {
		return view, err
	}
	changes, err := b.root.Revert(events)
	if err == nil {
		var bytes *cache.Blob
		var packed snapshot.Packed
		if bytes, packed, err = b.pack(ctx, changes); err == nil {
			err = view.Apply(ctx, io.NewSectionReader(bytes, 0, packed.Size), record.Placement{})
			bytes.Close()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: take back what was applied: %w", ErrRoot, err), view.Close())
	}
	return view, nil
}

// lay puts the snapshot of a step over the view of its layer.
func (b *builder) lay(ctx context.Context, s *dag.Step) error {
	return b.use(ctx, s.Layer, func(v sandbox.Layered) error {
		b.mu.Lock()
		bl := b.blobs[s]
		b.mu.Unlock()
		if err := v.Apply(ctx, bl.reader(), b.placement(s)); err != nil {
			return b.failure(s, misplaced(s, err))
		}
		return nil
	})
}

// A changer makes the changes of a step and hands them to pack, which reads
// them before anything else happens to where they come from.
type changer func(ctx context.Context, s *dag.Step, pack func(snapshot.Changes) error) error

// maxTries bounds how often changes are packed of which a file changes meanwhile.
const maxTries = 3

// step makes the changes of a step that is to run, packs them, and has them
// stored in the background.
func (b *builder) step(ctx context.Context, s *dag.Step, change changer) error {
	b.Report.Emit(report.Event{Kind: report.Started, Step: s})
	start := time.Now()
	var bl *blob
	err := change(ctx, s, func(changes snapshot.Changes) error {
		took := time.Since(start)
		kept := 0
		changes = counting(changes, &kept)
		bytes, packed, err := b.pack(ctx, changes)
		for tries := 1; errors.Is(err, tree.ErrBusy) && tries < maxTries; tries++ {
			bytes, packed, err = b.pack(ctx, changes) // as it is by now
		}
		if err != nil {
			return err
		}
		bl = &blob{bytes: bytes, desc: cache.Descriptor{
			Key: b.sv.Plan.Keys.Step[s], Layer: s.Layer.Name,
			Digest: packed.Digest, Size: packed.Size, CRC32C: packed.CRC32C, DiffID: packed.DiffID,
			Entries: packed.Entries, Bytes: packed.Bytes,
			Record: b.sv.Plan.Keys.Record(s), Text: s.Text(),
			Took: took, Created: time.Now().UTC(),
		}}
		bl.installedNothing = kept == 0 && b.Steps.Installs(s)
		return nil
	})
	if err != nil {
		err = b.failure(s, err)
		var failed *BuildError
		if errors.As(err, &failed) {
			text, _, _ := strings.Cut(failed.Err.Error(), "\n")
			b.Report.Emit(report.Event{Kind: report.Failed, Step: s, Text: text, Took: time.Since(start)})
		}
		return err
	}
	b.setBlob(s, bl)
	if b.sv.Plan.Item(s).Decides && !bl.installedNothing {
		b.mu.Lock()
		b.changed = append(b.changed, s)
		b.mu.Unlock()
	}
	b.Report.Emit(report.Event{Kind: report.Ran, Step: s, Took: time.Since(start), Entries: bl.desc.Entries, Bytes: bl.desc.Bytes})
	b.put(s, bl)
	return nil
}

// failure says that a step failed.
func (b *builder) failure(s *dag.Step, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &BuildError{Step: s, Err: err}
}

// put stores a step's snapshot in the background. A store that fails is told
// once, by the store, and fails nothing.
func (b *builder) put(s *dag.Step, bl *blob) {
	if b.Store == nil || !b.Push || b.Steps.Unstored(s.Layer) {
		return
	}
	if bl.installedNothing {
		b.Report.Warnf("%s: RUN: what it installs is on this machine already, so its snapshot would install nothing elsewhere: it is neither stored nor pushed. "+
			"It runs in every session (%s this time), before what follows it is restored; remove the line if all machines have what it installs", s.Pos(), bl.desc.Took.Round(time.Millisecond))
		return
	}
	b.puts.Go(func() error {
		start := time.Now()
		b.Report.Emit(report.Event{Kind: report.Storing, Step: s, Bytes: bl.desc.Size})
		if err := b.Store.Put(b.putting, bl.desc, bl.bytes); err != nil {
			return nil // the store has told
		}
		b.mu.Lock()
		b.stored++
		b.mu.Unlock()
		b.Report.Emit(report.Event{Kind: report.Stored, Step: s, Bytes: bl.desc.Size, Took: time.Since(start)})
		return nil
	})
}

// wait returns when all that was built is stored.
func (b *builder) wait() { _ = b.puts.Wait() }

// close gives back views, files and what is still being downloaded.
func (b *builder) close() {
	if b.stopPrefetch != nil {
		b.stopPrefetch()
		b.prefetching.Wait()
	}
	b.wait()
	b.closeViews()
	for _, bl := range b.blobs {
		bl.bytes.Close()
	}
}

func (b *builder) closeViews() {
	for _, lv := range b.views {
		if lv.view != nil && !lv.shared {
			if err := lv.view.Close(); err != nil {
				b.Report.Warnf("a work folder is left behind: %v", err)
			}
		}
	}
	b.views = nil
}

func (b *builder) setBlob(s *dag.Step, bl *blob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs[s] = bl
	if there := b.arrived[s]; there != nil {
		close(there)
	}
}

// bring makes the changes of FETCH, COPY and WORKDIR.
func (b *builder) bring(ctx context.Context, s *dag.Step, pack func(snapshot.Changes) error) error {
	changes, err := b.Steps.Changes(ctx, s)
	if err != nil {
		return err
	}
	return pack(changes)
}

// inLayerView makes the changes of RUN and SNAPSHOT.
func (b *builder) inLayerView(ctx context.Context, s *dag.Step, pack func(snapshot.Changes) error) error {
	return b.use(ctx, s.Layer, func(v sandbox.Layered) error { return b.look(ctx, v, s, pack) })
}

// look makes the changes of a step that looks at the root.
func (b *builder) look(ctx context.Context, v sandbox.View, s *dag.Step, pack func(snapshot.Changes) error) error {
	switch in := s.Instr.(type) {
	case *frontend.Run:
		return b.runStep(ctx, v, s, in, pack)
	case *frontend.Snapshot:
		changes, err := v.Capture(ctx, in.Path)
		if errors.Is(err, fs.ErrNotExist) {
			b.Report.Warnf("%s: SNAPSHOT: %s does not exist when the layer is done", s.Pos(), in.Path)
			return pack(nothing)
		}
		if err != nil {
			return err
		}
		if in.Capture == frontend.CaptureChanged {
			// What the steps changed there is in their own snapshots.
			return pack(nothing)
		}
		return pack(changes)
	}
	panic(fmt.Sprintf("solver: %T in a view", s.Instr))
}

// nothing is the changes of a step that changes nothing.
func nothing(func(*snapshot.Entry, error) bool) {}

func (b *builder) runStep(ctx context.Context, v sandbox.View, s *dag.Step, run *frontend.Run, pack func(snapshot.Changes) error) error {
	cmd, release, err := b.Steps.Command(ctx, s, run)
	if err != nil {
		return err
	}
	defer release()
	cmd.Filter = &s.Filter
	cmd.Output = writerFunc(func(p []byte) (int, error) {
		b.Report.Emit(report.Event{Kind: report.Output, Step: s, Text: string(p)})
		return len(p), nil
	})
	if b.direct() {
		cmd.Dirty = b.dirty
		cmd.Begin = func(before *tree.Reading, secrets []string) error {
			run := interrupted{Layer: s.Layer.Name, Text: s.Text(), Line: s.Pos().Line, Tx: b.tx, Filter: s.Filter, Secrets: secrets}
			for _, m := range cmd.Mounts {
				run.Targets = append(run.Targets, m.Target)
			}
			return b.announce(run, before)
		}
	}
	place := b.root.StateDir().String() // a RUN may move it
	changes, err := v.Run(ctx, cmd)
	direct := b.direct() // then nothing else runs
	if direct {
		b.failed = changes // until it is packed
		var gone *stateFault
		if serr := b.resettle(place); errors.As(serr, &gone) {
			return b.unrecorded(serr)
		} else if serr != nil { // nobody knows: the RUN counts as one that failed
			err = errors.Join(err, serr)
		}
	}
	if err == nil {
		err = pack(b.sparing(place, changes))
	}
	var moved *stateFault
	switch {
	case direct && errors.As(err, &moved):
		return b.unrecorded(err)
	case direct && err == nil:
		b.failed = nil
	}
	return err
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
