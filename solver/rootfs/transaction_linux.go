package rootfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// A transaction takes a root from one committed state to the next: it undoes
// applies and makes new ones. Until state.json is replaced, all of it can be
// rolled back, since nothing is deleted before; from then on it is done.
type transaction struct {
	r        *Root
	id       int
	journal  *record.Journal
	next     record.State        // what is committed
	steps    []record.Applied    // applied in it
	preserve map[string]bool     // paths that the user changed, which stay as they are
	records  map[string][]string // by the path of a database, the keys of records that the user changed
	lifted   Undone              // of the profile, where no Undo reports it

	spends   bool         // the reserve, where the disk is full: it undoes
	reserved record.Space // at least that, for the undo of what it applies
}

// begin starts a transaction, if none is open.
func (l *Lock) begin() (*transaction, error) {
	if l.tx != nil {
		return l.tx, nil
	}
	r := l.root
	err := r.spending(rollbackFiles, func() error {
		return errors.Join(l.root.sys.MkdirAll(r.dir, 0o755), r.state.MkdirAll("log", 0o755))
	})
	if err != nil {
		return nil, err
	}
	t := &transaction{r: r, id: l.state.Tx + 1, next: *l.state, preserve: make(map[string]bool), records: make(map[string][]string)}
	t.next.Trash = nil
	t.next.Log, t.next.Preserved, t.next.Layers = slices.Clone(t.next.Log), slices.Clone(t.next.Preserved), slices.Clone(t.next.Layers)
	err = r.spending(rollbackFiles, func() (err error) {
		if err = l.mark(); err == nil {
			t.journal, err = r.state.NewJournal(t.id)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	l.tx = t
	return t, nil
}

// forRoot returns what the root gets of a step, and notes in the step whether that is
// all. It is the one place where a snapshot loses its scratch on the way to a root.
func forRoot(step *record.Applied, changes snapshot.Changes) snapshot.Changes {
	if step.AllForRoot {
		return changes
	}
	return snapshot.ForRoot(changes, &step.Scratch)
}

// apply applies a stream to the root and saves what it replaces.
func (t *transaction) apply(ctx context.Context, step record.Applied, changes snapshot.Changes) (unpack.Result, error) {
	space := t.applies()
	to := unpack.Recording{Dir: t.r.state, Journal: t.journal, Preserve: t.preserve, PreserveRecords: t.records, Lower: t.r.lower, Hidden: record.Hidden(t.next.Log), Verified: step.Verified, Placement: step.Placement}
	ev, res, err := unpack.Recorded(ctx, t.r.dir, changes, to, record.Event{Seq: t.next.NextSeq(), Key: step.Key, Tx: t.id})
	if err != nil {
		return res, err
	}
	ev.Space = space()
	// What is under a step that could not be undone is applied again with it.
	ev.Incomplete = len(res.Problems) > 0 || t.next.Retry()
	t.next.Log = append(t.next.Log, ev)
	return res, nil
}

// Apply changes the root by the step's entries, in the transaction that the
// first Undo or Apply after Lock or Commit begins.
//
// The error is a hard one (a full disk, a stream that is invalid, ctx): of the
// transaction nothing but Rollback is possible then. Entries that could not be
// made are in the Result, and the step counts as applied, incompletely.
func (l *Lock) Apply(ctx context.Context, step record.Applied, changes snapshot.Changes) (unpack.Result, error) {
	t, err := l.begin()
	if err != nil {
		return unpack.Result{}, err
	}
	var res unpack.Result
	if step.Digest != "" {
		if err := t.liftProfile(ctx, false, &t.lifted); err != nil {
			return res, err
		}
		if res, err = t.apply(ctx, step, forRoot(&step, changes)); err != nil {
			return res, err
		}
	}
	t.steps = append(t.steps, step)
	res.Scratch = step.Scratch
	return res, nil
}

// Commit makes what was done since Lock, or the last Commit, lasting: of the
// composition as it is now the layers, with the keys of their steps and the
// environment, and the platform if none is recorded yet.
//
// After an error the root is as it was before; Rollback has been called.
func (l *Lock) Commit(platform string, layers []record.LayerKeys, env []record.Var) error {
	if l.tx == nil && l.state.Pristine() && len(layers)+len(env) == 0 {
		return nil
	}
	t, err := l.begin()
	if err != nil {
		return err
	}
	known := make(map[key.Key]record.Applied)
	for _, layer := range t.next.Layers {
		for _, a := range layer.Steps {
			known[a.Key] = a
		}
	}
	for _, a := range t.steps {
		known[a.Key] = a
	}
	t.next.Layers = nil
	for _, k := range layers {
		layer := record.Layer{Name: k.Name, Env: k.Env}
		for _, s := range k.Steps {
			if a, ok := known[s]; ok {
				layer.Steps = append(layer.Steps, a)
			}
		}
		t.next.Layers = append(t.next.Layers, layer)
	}
	t.next.Env = env
	if t.next.Platform == "" {
		t.next.Platform = platform
	}
	return l.commit()
}

// SetLost replaces State.Lost, with the next Commit.
func (l *Lock) SetLost(paths []string) error {
	t, err := l.begin()
	if err == nil {
		t.next.Lost = paths
	}
	return err
}

// Look calls f, which reads the root. What it unlocks is announced in a transaction that
// is rolled back then: the directories have their modes again, also after a kill.
func (l *Lock) Look(f func(locked inroot.Locked) error) error {
	t, err := l.begin()
	if err != nil {
		return err
	}
	err = f(func(p string, st *unix.Stat_t) error {
		was := func() *record.Meta { return record.MetaOfStat(st) }
		if err := t.journal.AddDir(inroot.IDOf(st), p, was); err != nil {
			return err
		}
		return t.journal.Sync()
	})
	return errors.Join(err, l.Rollback())
}

// commit replaces the state by that of the transaction, which is what makes it
// done, and removes what only rolling it back would have needed.
func (l *Lock) commit() error {
	t := l.tx
	err := t.r.trash().Date(t.next.Trash)
	if err == nil {
		err = t.settle()
	}
	if err != nil {
		return errors.Join(err, l.Rollback())
	}
	t.next.Tx = t.id
	stamp := func(now time.Time) {
		for i := range t.next.Log {
			if t.next.Log[i].Tx == t.id {
				t.next.Log[i].Done = now
			}
		}
		if p := t.next.Profile; p != nil && p.Tx == t.id {
			p.Done = now
		}
	}
	ready := func() error {
		if t.spends {
			return nil
		}
		return t.reserve(t.next.UndoNeeds())
	}
	err = t.spending(func() error { return t.r.state.Save(&t.next, stamp, ready) })
	if err != nil {
		return errors.Join(err, l.Rollback())
	}
	l.tx = nil
	l.state = &t.next
	// It is done, whatever becomes of the rest: the next Lock does it again.
	_ = t.r.state.Held().SyncDir(".")
	_ = t.journal.Close()
	_ = t.r.cleanup(l.state)
	return nil
}

// settle makes the changes of a transaction outlive a loss of power: before the
// state that says so, and before anything is deleted.
func (t *transaction) settle() error {
	if err := t.journal.Flush(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if !t.journal.Began() {
		return t.journal.SyncFile()
	}
	return t.r.sync()
}

// sync makes what was done to the root and to the state outlive a loss of power.
func (r *Root) sync() error {
	top, err := r.sys.OpenDir(r.dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", r.dir, err)
	}
	defer unix.Close(top)
	state, err := r.state.Held().OpenFD(".")
	if err != nil {
		return err
	}
	defer unix.Close(state)
	if err := r.sys.Syncfs(top); err != nil {
		return fmt.Errorf("sync %s: %w", r.dir, err)
	}
	var a, b unix.Stat_t
	if errors.Join(unix.Fstat(top, &a), unix.Fstat(state, &b)) == nil && a.Dev == b.Dev {
		return nil
	}
	if err := r.sys.Syncfs(state); err != nil {
		return fmt.Errorf("sync %s: %w", r.state, err)
	}
	return nil
}

// cleanup removes what no apply of a state needs.
func (r *Root) cleanup(s *record.State) error {
	logs, originals := make(map[string]bool), make(map[string]bool)
	needed := slices.Concat(s.Log, s.Preserved)
	if s.Profile != nil {
		needed = append(needed, *s.Profile)
	}
	for _, ev := range needed {
		logs[path.Base(record.LogName(ev.Tx))] = true
		originals[path.Base(record.OriginalsName(ev.Seq))] = true
	}
	if err := r.trash().Empty(s); err != nil {
		return err
	}
	own := r.state.Held()
	errs := []error{own.RemoveAll("stage"), own.RemoveAll("trash")}
	sweep := func(dir string, needed map[string]bool) {
		entries, err := own.ReadDir(dir)
		if err != nil {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if !needed[e.Name()] {
				errs = append(errs, own.RemoveAll(path.Join(dir, e.Name())))
			}
		}
	}
	sweep("originals", originals)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	sweep("log", logs) // last: it has what says that the root was rolled back
	errs = append(errs, r.fitReserve(s))
	return errors.Join(errs...)
}
