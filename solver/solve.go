package solver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/rootfs"
	"github.com/clayer/clayer/solver/rootfs/record"
	"github.com/clayer/clayer/solver/source"
)

// A Result is what a solve did.
type Result struct {
	Ran      int           `json:"ran"`            // steps that were run, fetched or copied
	Restored int           `json:"restored"`       // steps whose snapshot came from a store
	Present  int           `json:"present"`        // steps that were in the root already
	Undone   int           `json:"undone"`         // steps that fell away, or have to be applied anew
	Kept     []rootfs.Kept `json:"kept,omitempty"` // files that stay as the user has them
	Layers   []LayerResult `json:"layers"`
	Took     time.Duration `json:"took"` // nanoseconds
}

// A LayerResult names a layer that is now in the root.
type LayerResult struct {
	Name string  `json:"name"`
	Key  key.Key `json:"key"`
	Tag  string  `json:"tag"`
}

// String says the counts in words: "1 ran, 2 restored, 3 present".
func (r *Result) String() string {
	var parts []string
	for _, c := range []struct {
		n    int
		what string
	}{{r.Ran, "ran"}, {r.Restored, "restored"}, {r.Present, "present"}, {r.Undone, "undone"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// Solve makes the root what the request says: it plans, restores what is
// cached, builds the rest, and applies both.
//
// The error is frontend.Problems for what the files' writer has to change, a
// *BuildError for a step that failed (the root is untouched then), wraps
// ErrRoot when the root could not be changed, wholly or in part, and ErrStore
// when a store failed under RequireCache. The Result is nil if nothing was
// applied.
func Solve(ctx context.Context, opt Options) (res *Result, err error) {
	r := newSession(opt)
	start := time.Now()
	root, err := r.open()
	if err != nil {
		return nil, err
	}
	sv, err := r.survey(ctx, root)
	if err != nil {
		return nil, err
	}
	cut, err := isCutOff(root)
	if err != nil {
		return nil, err
	}
	if !sv.upToDate() || cut || r.profileDiffers(root, sv.state, sv.env()) {
		lock, err := root.Lock(ctx, !r.NoWait, func(holder string) {
			r.emit(Event{Kind: EventWaiting, Text: holder})
		})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRoot, err)
		}
		defer func() {
			if uerr := lock.Unlock(); uerr != nil {
				err = errors.Join(err, fmt.Errorf("%w: %w", ErrRoot, uerr))
			}
		}()
		r.tellRecovered(lock)
		if err := r.recoverRun(ctx, root, lock); err != nil {
			return nil, err
		}
		// Another solve may have changed the root since. The sources are pinned
		// already: nothing is requested twice.
		if sv, err = r.survey(ctx, root); err != nil {
			return nil, err
		}
		r.emit(Event{Kind: EventPlanned, Plan: sv.plan})
		if err := r.make(ctx, root, lock, sv); err != nil {
			return nil, err
		}
	}
	r.emit(Event{Kind: EventDone})
	res = sv.result()
	res.Took = time.Since(start)
	if r.RequireCache {
		if err := r.Report.storeErr(); err != nil {
			return res, err
		}
	}
	return res, sv.incomplete
}

// upToDate reports whether the root is what the plan wants.
func (sv *survey) upToDate() bool {
	for _, pl := range sv.plan.Layers {
		for _, it := range pl.Items {
			if it.State != dag.Present {
				return false
			}
		}
	}
	return sv.state.Platform != "" && !sv.state.Retry() && sv.sameEnv() && slices.EqualFunc(sv.state.Layers, sv.layers(), func(l record.Layer, k rootfs.LayerKeys) bool {
		return l.Name == k.Name && slices.EqualFunc(l.Steps, k.Steps, func(a record.Applied, k key.Key) bool { return a.Key == k })
	})
}

// env is the environment of the composition.
func (sv *survey) env() []frontend.Var { return compositionEnv(sv.plan.Graph, len(sv.plan.Layers)) }

// layers returns the composition as the state records it.
func (sv *survey) layers() []rootfs.LayerKeys {
	var layers []rootfs.LayerKeys
	for i, pl := range sv.plan.Layers {
		l := rootfs.LayerKeys{Name: pl.Layer.Name, Env: stateEnv(sv.plan.Graph, i+1)}
		for _, it := range pl.Items {
			l.Steps = append(l.Steps, it.Key)
		}
		layers = append(layers, l)
	}
	return layers
}

func (sv *survey) result() *Result {
	res := &Result{Undone: sv.undone, Kept: sv.kept}
	for i := range sv.plan.Layers {
		pl := &sv.plan.Layers[i]
		t := pl.Totals()
		res.Ran += t.ToRun
		res.Restored += t.Cached
		res.Present += t.Present
		res.Layers = append(res.Layers, LayerResult{pl.Layer.Name, pl.Key, cache.Tag(pl.Layer.Name, pl.Key)})
	}
	return res
}

// make does what is to be done, under the root's lock.
func (r *session) make(ctx context.Context, root *rootfs.Root, lock *rootfs.Lock, sv *survey) error {
	putting, stop := lasting(ctx)
	defer stop()
	b := &builder{r: r, root: root, sv: sv, blobs: make(map[*dag.Step]*blob), putting: putting}
	defer b.close()
	b.prefetch(ctx, b.before(nil))
	applied, err := b.stream(ctx, lock)
	if err == nil && !applied {
		err = b.buildAndApply(ctx, lock)
	}
	if err != nil {
		return err
	}
	b.wait()
	if err := ctx.Err(); err != nil {
		return err // an upload may be cut off: the next solve completes the layers
	}
	b.complete(ctx)
	if _, err := r.sources().Downloads.Prune(cmp.Or(r.MaxDownloads, defaultDownloads)); err != nil {
		r.warn("downloads that are not needed any more stay: %v", err)
	}
	return nil
}

// buildAndApply restores what is cached, builds the rest, and then changes the root.
func (b *builder) buildAndApply(ctx context.Context, lock *rootfs.Lock) error {
	if err := b.restore(ctx); err != nil {
		return err
	}
	build, apply := b.build, b.apply
	if b.direct() {
		build = func(ctx context.Context) error { return b.buildDirect(ctx, lock) }
		apply = b.commit
	}
	if err := build(ctx); err != nil {
		b.wait() // what is finished is kept, whatever became of the rest
		var failed *BuildError
		if errors.As(err, &failed) {
			failed.Kept = b.kept
		}
		return err
	}
	// What is still being uploaded does not keep the root waiting.
	return apply(ctx, lock)
}

// grace is how long a cancelled solve still stores what is finished: a directory
// has it long before; an upload is resumed by the next session. Whoever cancels
// waits for two seconds at most.
const grace = time.Second

// lasting returns a context that ends some time after ctx does.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() { stop(); cancel() }
}

const defaultDownloads = 2 << 30

// apply makes the root what the plan wants, in one transaction: what is not at
// the beginning of the composition any more is undone, the last first, and the
// steps that are not present are applied, in composition order.
func (b *builder) apply(ctx context.Context, lock *rootfs.Lock) error {
	if err := b.applySteps(ctx, lock); err != nil {
		return err
	}
	return b.commit(ctx, lock)
}

// applySteps is apply without the commit.
func (b *builder) applySteps(ctx context.Context, lock *rootfs.Lock) error {
	if b.mustUndo(lock) || lock.State().Profile != nil { // which is the first to be undone
		if err := b.arriveFirst(ctx); err != nil {
			return err
		}
	}
	b.r.emit(Event{Kind: EventApplying, Text: b.root.Dir()})
	if err := b.undo(ctx, lock); err != nil {
		return err
	}
	for i := range b.sv.plan.Layers {
		pl := &b.sv.plan.Layers[i]
		for j := range pl.Items {
			if it := &pl.Items[j]; it.State != dag.Present {
				if err := b.applyStep(ctx, lock, it); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// commit makes lasting what was applied.
func (b *builder) commit(ctx context.Context, lock *rootfs.Lock) error {
	kept, err := b.r.keepProfile(ctx, lock, b.r.Profile || lock.State().Profile != nil, b.sv.env())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	b.keep(kept...)
	if err := lock.Commit(b.sv.platform, b.sv.layers(), stateEnv(b.sv.plan.Graph, len(b.sv.plan.Layers))); err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	if len(b.incomplete) > 0 {
		b.sv.incomplete = fmt.Errorf("%w wholly:\n  %w", ErrRoot, joinLines(b.incomplete))
	}
	return nil
}

// mustUndo reports whether something in the root has to go, or to be tried again.
func (b *builder) mustUndo(lock *rootfs.Lock) bool {
	return len(lock.State().Log) != stay(b.sv.plan.Graph, b.sv.answers.Present) || lock.State().Retry()
}

// undo takes back the applies behind those that stay.
func (b *builder) undo(ctx context.Context, lock *rootfs.Lock) error {
	if !b.mustUndo(lock) {
		return nil
	}
	undone, err := lock.Undo(ctx, stay(b.sv.plan.Graph, b.sv.answers.Present), b.r.Force)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRoot, err)
	}
	b.sv.undone = len(undone.Steps)
	b.keep(undone.Kept...)
	if b.direct() {
		// The next RUN takes care of it: its snapshot has what is there.
		b.dirty, undone.Lost = undone.Lost, nil
	}
	b.incomplete = append(b.incomplete, notUndone(undone)...)
	return nil
}

// keep tells which files stay as the user has them, each once.
func (b *builder) keep(kept ...rootfs.Kept) {
	for _, k := range kept {
		if !slices.ContainsFunc(b.sv.kept, func(x rootfs.Kept) bool { return x.Path == k.Path }) {
			b.sv.kept = append(b.sv.kept, k)
			b.r.warn("%s", KeptText(k))
		}
	}
}

// complete lists the layers that are whole in the stores, with all their steps.
func (b *builder) complete(ctx context.Context) {
	if b.r.Store == nil || !b.r.Push {
		return
	}
	applied := make(map[key.Key]record.Applied)
	for _, l := range b.sv.state.Layers {
		for _, a := range l.Steps {
			applied[a.Key] = a
		}
	}
	for _, pl := range b.sv.plan.Layers {
		if b.r.isLegacy(pl.Layer) {
			continue
		}
		m := cache.Manifest{Name: pl.Layer.Name, Key: pl.Key, Platform: b.sv.platform, Created: time.Now().UTC()}
		fresh, whole := false, true
		for _, it := range pl.Items {
			if !it.Step.ChangesRoot() {
				continue
			}
			if bl := b.blobs[it.Step]; bl != nil {
				whole = whole && !bl.installedNothing
				fresh = fresh || it.State != dag.Present
				m.Steps = append(m.Steps, bl.desc)
				continue
			}
			a := applied[it.Key]
			m.Steps = append(m.Steps, cache.Descriptor{
				Key: a.Key, Layer: pl.Layer.Name, Digest: a.Digest, Size: a.Size, CRC32C: a.CRC32C, DiffID: a.DiffID,
				Entries: a.Entries, Bytes: a.Bytes, Record: a.Record, Text: a.Text, Took: a.Took, Created: a.At,
			})
		}
		if !fresh || !whole {
			continue
		}
		// A store that lost a step of it, or never had it, lists no layer.
		_ = b.r.Store.Complete(ctx, m) // the store has told
	}
}

func (b *builder) applyStep(ctx context.Context, lock *rootfs.Lock, it *dag.Item) error {
	s := it.Step
	early, err := b.comes(ctx, s)
	if err != nil {
		return err
	}
	if early != nil {
		var stop context.CancelFunc
		ctx, stop = early.Context(ctx)
		defer stop()
	}
	applied, contents, changes, err := b.applied(ctx, it, early)
	if err != nil {
		return err
	}
	res, err := lock.Apply(ctx, applied, changes)
	if err != nil && early != nil {
		if lost := early.Verdict(ctx); lost != nil {
			return lost
		}
	}
	if err == nil && contents != nil {
		if err = b.arrive(ctx, s); err == nil {
			b.mu.Lock()
			blob := b.blobs[s].file
			b.mu.Unlock()
			err = contents.CheckTable(blob)
		}
	}
	if bad, ok := invalid(it, err); ok {
		return bad
	}
	for _, p := range res.Kept {
		b.keep(rootfs.Kept{Path: p, Why: "changed since"})
	}
	for _, p := range res.Problems {
		b.incomplete = append(b.incomplete, fmt.Errorf("%s: /%s: %w", s.Pos(), p.Path, p.Err))
	}
	var fault *source.Fault
	if err = misplaced(s, err); errors.As(err, &fault) {
		return b.failure(s, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: apply %s: %w", ErrRoot, s.Pos(), it.Key.Short(), err)
	}
	b.r.emit(Event{Kind: EventApplied, Step: s, Entries: res.Entries, Bytes: res.Bytes})
	return nil
}

// applied is what is recorded of an item, and its changes: early is its snapshot,
// where that is not all there yet. What a store had is checked while it is read.
func (b *builder) applied(ctx context.Context, it *dag.Item, early *cache.Arrival) (applied record.Applied, c *cache.Contents, changes snapshot.Changes, err error) {
	s := it.Step
	applied = record.Applied{
		Key: it.Key, Layer: s.Layer.Name, Text: s.Text(), Line: s.Pos().Line,
		Record: b.sv.plan.Keys.Record(s), At: time.Now().UTC(), Placement: b.r.placement(s),
	}
	if !s.ChangesRoot() {
		return applied, nil, nothing, nil
	}
	var desc cache.Descriptor
	var packed io.Reader
	checked := false
	if early != nil {
		desc, packed, applied.Sound = b.sv.found[it.Key], early.Reader(ctx), early.Sound()
	} else {
		b.mu.Lock()
		bl := b.blobs[s]
		b.mu.Unlock()
		desc, packed, checked = bl.desc, bl.reader(), bl.checked
	}
	applied.Digest, applied.DiffID, applied.Size, applied.CRC32C = desc.Digest, desc.DiffID, desc.Size, desc.CRC32C
	applied.Entries, applied.Bytes, applied.Took = desc.Entries, desc.Bytes, desc.Took
	if it.State == dag.Cached && !checked {
		c, changes, err = b.entries(ctx, it, desc, packed)
		return applied, c, changes, err
	}
	return applied, nil, snapshot.ReadUnvalidated(packed), nil // the apply validates it
}

// joinLines joins errors, one a line, indented; more than twenty are cut short.
func joinLines(errs []error) error {
	const most = 20
	more := len(errs) - most
	if more > 0 {
		errs = errs[:most:most]
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return &lines{errs}
}

type lines struct{ errs []error }

func (l *lines) Unwrap() []error { return l.errs }

func (l *lines) Error() string {
	texts := make([]string, len(l.errs))
	for i, err := range l.errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "\n  ")
}
