package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/tree"
	"github.com/clayer/clayer/solver/exec/internal/contents"
	"github.com/clayer/clayer/solver/exec/internal/flow"
	"github.com/clayer/clayer/solver/exec/internal/identity"
	"github.com/clayer/clayer/solver/exec/internal/ownstate"
	"github.com/clayer/clayer/solver/exec/internal/wrote"
	"github.com/clayer/clayer/solver/internal/inventory"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/needs"
	"github.com/clayer/clayer/solver/internal/places"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/running"
	"github.com/clayer/clayer/solver/internal/scratch"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/internal/variants"
	"github.com/clayer/clayer/solver/report"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/sandbox"
	"github.com/clayer/clayer/solver/sandbox/inplace"
	"github.com/clayer/clayer/solver/sandbox/overlay"
)

// A builder carries one solve from its plan to the root.
type builder struct {
	Config
	root *rootfs.Root
	sv   *survey.Survey
	did  Result
	sb   *sandbox.Sandbox
	work string // the directory for scratch; "": the root's

	mu     sync.Mutex
	blobs  map[*dag.Step]*blob // of all steps that are not present, as they come
	names  map[*dag.Layer]*chainNames
	views  map[*survey.LayerView]*openView // those that were used
	stored int                             // steps that were built and stored
	known  map[*dag.Step]madeBy            // see whatMade
	// In place alone: what is in the root as no step that stays has left it,
	// and what a RUN that failed did all the same.
	dirty   []string
	lost    []string           // State.Lost, once this solve has added to it
	inexact map[*dag.Step]bool // steps of which the view did not show all that their chain describes
	other   map[*dag.Step]bool // steps that made another snapshot than the one that cannot be had
	failed  snapshot.Changes
	lock    *rootfs.Lock // nil: nothing is applied to the root
	tx      int          // the last transaction before a RUN
	running bool         // one was announced, and its record is not committed yet

	inPlace sandbox.InPlace            // the view that is the root
	led     map[*dag.Step]places.Place // in place: see leadDests
	sums    needs.Saved                // in place: of files that the next RUN may change

	written wrote.Paths

	variants *variants.Lost

	scratch   map[*dag.Step]bool // steps that were applied, or ran in place, and have some
	viewOf    *dag.Layer         // of View: whose steps it has taken last
	scratchIn []*dag.Step        // in place: those whose scratch is in the root now, in order

	fetching map[*dag.Step]*cache.Blob // snapshots that may be applied while they arrive
	applying applying                  // the item that was applied last

	incomplete []error // what could not be applied, or undone, while the rest was

	here     handmade
	identity *identity.Steps
}

// A blob is the packed snapshot of a step, on this machine and verified. It stays
// readable when the store drops it meanwhile: the file is open.
type blob struct {
	desc  cache.Descriptor
	bytes *cache.Blob
	took  time.Duration // that it took to fetch it
	moved int64         // how much of it was transferred, if not all

	names *names.List // of a step that was built now

	installedNothing bool // it is put into no store
	checked          bool // all of it was read: it is the snapshot of its step
}

// reader returns the blob from its beginning. Several readers may be in use.
func (b *blob) reader() io.ReadSeeker { return io.NewSectionReader(b.bytes, 0, b.desc.Size) }

// entries returns what is in the snapshot; they may be read several times.
func (b *blob) entries() snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) { snapshot.Read(b.reader())(yield) }
}

// blob returns the snapshot of a step; nil if it is not on this machine.
func (b *builder) blob(s *dag.Step) *blob {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.blobs[s]
}

func (b *builder) Has(s *dag.Step) bool { return b.blob(s) != nil }

func (b *builder) setBlob(s *dag.Step, bl *blob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs[s] = bl
}

func (b *builder) Forget(s *dag.Step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bl := b.blobs[s]; bl != nil {
		bl.bytes.Close()
		delete(b.blobs, s)
		clear(b.names) // which may read it
	}
}

// Engines are the sandboxes that steps run in, the best first.
var Engines = []sandbox.Engine{overlay.Engine, inplace.Engine}

// ChooseSandbox chooses the sandbox, once it is known that something is to run, and
// reports whether RUN changes the root itself.
func (b *builder) ChooseSandbox() (inPlace bool, err error) {
	if b.sb == nil && survey.Runs(b.sv.Plan) {
		err = b.openSandbox()
	}
	if err == nil && b.BuildOnly && b.isInPlace() {
		err = errors.New("nothing can be built here without changing the root: there is no overlay")
	}
	return b.isInPlace(), err
}

func (b *builder) openSandbox() error {
	work, err := b.root.WorkDir()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	opt := b.Sandbox
	opt.Work = work
	sb, err := sandbox.Choose(b.Kind, opt, Engines...)
	if errors.Is(err, sandbox.ErrUnavailable) && b.Kind == "overlay" {
		err = &OverlayError{err}
	}
	if err != nil {
		return err
	}
	b.sb = sb
	b.Report.Emit(report.Event{Kind: report.Sandbox, Text: sb.String()})
	return nil
}

// isInPlace reports whether RUN changes the root itself.
func (b *builder) isInPlace() bool { return b.sb != nil && b.sb.InPlace != nil }

// An openView is the view of a layer, once it is made. It is used by one goroutine at a time.
type openView struct {
	mu   sync.Mutex
	view sandbox.Layered
}

// use calls f with the layer's view, which is made at its first use.
func (b *builder) use(ctx context.Context, lv *survey.LayerView, f func(sandbox.Layered) error) error {
	b.mu.Lock()
	v := b.views[lv]
	if v == nil {
		v = new(openView)
		b.views[lv] = v
	}
	b.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.view == nil {
		view, err := b.open(ctx, lv)
		if err != nil {
			return err
		}
		v.view = view
	}
	return f(v.view)
}

func (b *builder) open(ctx context.Context, lv *survey.LayerView) (view sandbox.Layered, err error) {
	if lv.From == nil {
		return b.openReverted(ctx, lv.Revert)
	}
	err = b.use(ctx, lv.From, func(from sandbox.Layered) error {
		if view = from; !lv.Shared {
			view, err = from.Clone(ctx)
		}
		if err == nil && lv.Clear {
			err = view.ClearScratch(ctx)
		}
		return err
	})
	return view, err
}

// openReverted returns a view of the root without the given applies, the last of its log.
func (b *builder) openReverted(ctx context.Context, events []record.Event) (sandbox.Layered, error) {
	view, err := b.sb.Layered(ctx)
	log := b.sv.State.Log
	stay := log[:len(log)-len(events)]
	hides := slices.ContainsFunc(stay, func(ev record.Event) bool { return len(ev.Hidden) > 0 })
	if err != nil || len(events) == 0 && !hides {
		return view, err
	}
	changes, err := b.root.Revert(stay, events)
	if err == nil {
		var bytes *cache.Blob
		var packed snapshot.Packed
		if bytes, packed, err = b.pack(ctx, changes); err == nil {
			err = view.Apply(ctx, io.NewSectionReader(bytes, 0, packed.Size), record.Placement{})
			bytes.Close()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: revert what was applied: %w", ErrRoot, err), view.Close())
	}
	return view, nil
}

// ApplyTo applies the snapshot of a step to the view of its layer.
func (b *builder) ApplyTo(ctx context.Context, lv *survey.LayerView, s *dag.Step) error {
	lower := lv.Lower[b.sv.Plan.Keys.Step[s]]
	return b.use(ctx, lv, func(v sandbox.Layered) error { return b.applyToView(ctx, v, s, lower) })
}

// applyToView applies the snapshot of a step to a view; of one that the lower root has, its
// scratch alone.
func (b *builder) applyToView(ctx context.Context, v sandbox.Layered, s *dag.Step, lower bool) error {
	bl := b.blob(s)
	packed := contents.NewReader(bl.reader())
	apply := func() error { return v.Apply(ctx, packed, b.placement(s, bl.desc.Needs)) }
	if lower {
		apply = func() error { return v.ApplyScratch(ctx, packed) }
	}
	err := apply()
	var unread *contents.UnreadError
	switch it := b.sv.Plan.Item(s); {
	case err == nil:
		return nil
	case errors.As(err, &unread) && it.State != dag.ToRun:
		return &flow.InvalidError{Item: it, Err: unread}
	}
	return b.failure(s, misplaced(err))
}

// A changer makes the changes of a step and hands them to pack, which reads
// them before anything else happens to where they come from.
type changer func(ctx context.Context, s *dag.Step, pack packer) error

// A packer packs changes, with what they need: it is asked for when they are packed.
type packer func(snapshot.Changes, func() []snapshot.Need) error

// step makes the changes of a step that is to run, and packs them.
func (b *builder) step(ctx context.Context, s *dag.Step, change changer) (flow.Outcome, error) {
	b.Report.Emit(report.Event{Kind: report.Started, Step: s})
	start := time.Now()
	if b.Watched != nil && s.LooksAtRoot() {
		start = start.Add(-b.Watched.Took)
	}
	var bl *blob
	err := change(ctx, s, func(changes snapshot.Changes, needed func() []snapshot.Need) error {
		took := time.Since(start)
		entries := 0
		list := new(names.List)
		changes = list.Of(inventory.Counting(changes, &entries))
		bytes, packed, err := b.pack(ctx, changes)
		for tries := 1; errors.Is(err, tree.ErrBusy) && tries < running.MaxTries; tries++ {
			bytes, packed, err = b.pack(ctx, changes) // as it is by now
		}
		if err != nil {
			return err
		}
		bl = &blob{bytes: bytes, names: list, desc: cache.Descriptor{
			Version: cache.Version, Key: b.sv.Plan.Keys.Step[s], Layer: s.Layer.Name,
			Digest: packed.Digest, Size: packed.Size, CRC32C: packed.CRC32C, DiffID: packed.DiffID,
			Entries: packed.Entries, Bytes: packed.Bytes, Frames: packed.Frames,
			Record: b.sv.Plan.Keys.Record(s), Text: s.Text(),
			Took: took, Created: time.Now().UTC(), Cutoff: b.cutoff(s), Needs: needed(), On: b.variants.BuiltOn(b.sv, s), Replaces: b.variants.Replaced(b.sv, s),
		}}
		bl.installedNothing = entries == 0 && (inventory.Installs(s) || len(b.byHand()) > 0 && inventory.MayFind(s))
		bl.desc.Needs = b.byHandNeeds(s, bl)
		return nil
	})
	if err != nil {
		err = b.failure(s, err)
		var failed *BuildError
		if errors.As(err, &failed) {
			text, _, _ := strings.Cut(failed.Err.Error(), "\n")
			b.Report.Emit(report.Event{Kind: report.Failed, Step: s, Text: text, Took: time.Since(start)})
		}
		return flow.Outcome{}, err
	}
	b.setBlob(s, bl)
	b.Report.Emit(report.Event{Kind: report.Ran, Step: s, Took: time.Since(start), Entries: bl.desc.Entries, Bytes: bl.desc.Bytes})
	changed, text := b.decided(s, bl)
	if !b.sv.Plan.Item(s).Decides {
		return flow.Outcome{Store: b.stores(s, bl)}, nil
	}
	b.Report.Emit(report.Event{Kind: report.Decided, Step: s, Text: text})
	return flow.Outcome{Changed: changed, Store: b.stores(s, bl)}, nil
}

// failure says that a step failed.
func (b *builder) failure(s *dag.Step, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, flow.ErrScratch) || errors.As(err, new(*BuildError)) { // of a stage
		return err
	}
	return &BuildError{Step: s, Err: err}
}

// close closes the files of snapshots, and removes those that are in no store.
func (b *builder) close() {
	for _, bl := range b.blobs {
		bl.bytes.Close()
	}
}

func (b *builder) CloseViews() {
	for lv, v := range b.views {
		if v.view != nil && !lv.Shared {
			if err := v.view.Close(); err != nil {
				b.Report.Warnf("cannot remove a work directory: %v", err)
			}
		}
	}
	clear(b.views)
}

func (b *builder) Download(ctx context.Context, s *dag.Step) { _, _ = b.Steps.Changes(ctx, s) }

// Prepare downloads, and reads, the source of a FETCH or COPY, and what a RUN mounts.
func (b *builder) Prepare(ctx context.Context, s *dag.Step) error {
	if _, err := b.Steps.Changes(ctx, s); err != nil {
		return b.failure(s, err)
	}
	return nil
}

// Make makes the snapshot of a FETCH, COPY or WORKDIR.
func (b *builder) Make(ctx context.Context, s *dag.Step) (flow.Outcome, error) {
	if b.reuse(ctx, s) {
		return flow.Outcome{}, nil
	}
	return b.step(ctx, s, func(ctx context.Context, s *dag.Step, pack packer) error {
		place, err := b.Steps.Changes(ctx, s)
		if err != nil {
			return err
		}
		at, err := b.namesBefore(s)
		if err != nil {
			return err
		}
		at.Entered()
		changes, err := place(at)
		if asked := b.asksScratch(at, s); asked != nil {
			return asked
		}
		if err != nil {
			return err
		}
		_, fetched := s.Instr.(*frontend.Fetch)
		items, copied := places.Items{Follow: fetched || s.Word() == "ADD" || s.Word() == "FETCH"}, b.copied(s, at)
		return pack(items.From(copied.Of(changes)), func() []snapshot.Need { return b.placedNeeds(ctx, s, at, &items, copied) })
	})
}

// RunIn makes the snapshot of a RUN or SNAPSHOT in the view of its layer.
func (b *builder) RunIn(ctx context.Context, lv *survey.LayerView, s *dag.Step) (out flow.Outcome, err error) {
	if b.reuse(ctx, s) {
		return out, b.ApplyTo(ctx, lv, s)
	}
	return b.step(ctx, s, func(ctx context.Context, s *dag.Step, pack packer) error {
		return b.use(ctx, lv, func(v sandbox.Layered) error { return b.lookIn(ctx, v, s, pack) })
	})
}

// lookIn is look in a view that may not show all that was applied to it.
func (b *builder) lookIn(ctx context.Context, v sandbox.Layered, s *dag.Step, pack packer) error {
	if !v.Exact() {
		b.mu.Lock()
		b.inexact[s] = true
		b.mu.Unlock()
	}
	return b.look(ctx, v, s, pack)
}

func (b *builder) look(ctx context.Context, v sandbox.View, s *dag.Step, pack packer) error {
	switch in := s.Instr.(type) {
	case *frontend.Run:
		return b.runStep(ctx, v, s, in, pack)
	case *frontend.Snapshot:
		return b.snapshot(ctx, v, s, in, pack)
	}
	panic(fmt.Sprintf("solver: %T in a view", s.Instr))
}

func (b *builder) snapshot(ctx context.Context, v sandbox.View, s *dag.Step, in *frontend.Snapshot, pack packer) error {
	exists, err := v.Exists(ctx, in.Path)
	if err != nil {
		return err
	}
	if !exists {
		b.Report.Warnf("%s: SNAPSHOT: %s does not exist when the layer is done", s.Pos(), in.Path)
	}
	paths := []string{in.Path}
	if in.Capture == frontend.CaptureChanged {
		// What the steps changed elsewhere is in their own snapshots. The tree may be
		// large: it is not read.
		paths = scratch.Below(in.Path)
	}
	if !exists {
		paths = nil
	}
	return pack(needs.WithoutSecrets(sandbox.CaptureAll(ctx, v, paths)), func() []snapshot.Need { return b.placesBefore(s) })
}

// nothing is the changes of a step that changes nothing.
func nothing(func(*snapshot.Entry, error) bool) {}

func (b *builder) runStep(ctx context.Context, v sandbox.View, s *dag.Step, run *frontend.Run, pack packer) error {
	cmd, release, err := b.Steps.Command(ctx, b.sv.Plan.Item(s), run, b.isInPlace())
	if err != nil {
		return err
	}
	defer release()
	cmd.Filter = &s.Filter
	cmd.Output = writerFunc(func(p []byte) (int, error) {
		b.Report.Emit(report.Event{Kind: report.Output, Step: s, Text: string(p)})
		return len(p), nil
	})
	if b.isInPlace() {
		cmd.Dirty = b.dirty
		cmd.Begin = func(before *tree.Reading, secrets []string) error {
			run := running.Run{Layer: s.Layer.Name, Text: s.Text(), Line: s.Pos().Line, Tx: b.tx, Filter: s.Filter, Secrets: secrets}
			for _, m := range cmd.Mounts {
				run.Targets = append(run.Targets, m.Target)
			}
			if err := run.Announce(b.root, b.lock, before); err != nil {
				return err
			}
			b.running = true
			return nil
		}
	}
	who, err := b.identity.Give(s, run, b.namesBefore, &cmd)
	if err != nil {
		return err
	}
	b.byHand() // as it is before
	rec, err := b.recorder(v, s, who)
	if err != nil {
		return fmt.Errorf("read what was before: %w", err)
	}
	place := b.ownState() // a RUN may move it
	changes, err := v.Run(ctx, cmd)
	inPlace := b.isInPlace() // then nothing else runs
	if inPlace {
		err = errors.Join(err, b.holdScratch())
		if b.Watched == nil {
			b.failed = changes // until it is packed
		}
		var gone *ownstate.Fault
		if serr := place.Resettled(b.lock.Resettle()); errors.As(serr, &gone) {
			return b.unrecorded(serr)
		} else if serr != nil { // nobody knows: the RUN counts as one that failed
			err = errors.Join(err, serr)
		}
	}
	if err == nil {
		var x scratch.Excess
		if err = pack(rec.Of(place.Sparing(x.Without(changes))), func() []snapshot.Need { return b.recorded(s, rec, who) }); err == nil {
			err = b.dropExcess(ctx, v, s, &x)
		}
	}
	var moved *ownstate.Fault
	switch {
	case inPlace && errors.As(err, &moved):
		return b.unrecorded(err)
	case inPlace && err == nil:
		b.failed = nil
	}
	return err
}

// ownState is where the root has the state of clayer now.
func (b *builder) ownState() ownstate.Place {
	return ownstate.Place{Root: b.root.Dir(), State: b.root.StateDir().String()}
}

// unrecorded is for a RUN in place of which no snapshot can be made, and whose changes
// clayer should not undo: moved files would be deleted where they are now.
func (b *builder) unrecorded(err error) error {
	b.failed = nil
	b.Report.Warnf("nothing of it is stored or recorded; what it did to the root stays, also with undo")
	return errors.Join(err, b.forgetRun())
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
