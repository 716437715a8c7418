package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
)

// A transaction takes a root from one committed state to the next: it undoes
// applies and makes new ones. Until state.json is replaced, all of it can be
// taken back, since nothing is deleted before; from then on it is done.
type transaction struct {
	r        *Root
	id       int
	log      *logWriter
	next     State           // what is committed
	steps    []Applied       // applied in it
	undone   []Event         // whose originals and log lines are needed no more
	seen     map[fileID]bool // folders whose metadata is in the log, or that were made here
	keep     map[string]bool // paths that the user changed, which stay as they are
	unsynced bool            // there are lines that no sync has covered
	named    bool            // the log's name is synced
	changed  bool            // something was done to the root, or may have been
}

// begin starts a transaction, if none is open.
func (l *Lock) begin() (*transaction, error) {
	if l.tx != nil {
		return l.tx, nil
	}
	r := l.root
	for _, dir := range []string{r.dir, filepath.Join(r.state, "log")} {
		if err := mkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	t := &transaction{r: r, id: l.state.Tx + 1, next: *l.state, seen: make(map[fileID]bool), keep: make(map[string]bool)}
	t.next.Log, t.next.Kept, t.next.Layers = slices.Clone(t.next.Log), slices.Clone(t.next.Kept), slices.Clone(t.next.Layers)
	var err error
	if t.log, err = createLog(r.logPath(t.id)); err != nil {
		return nil, err
	}
	l.tx = t
	return t, nil
}

// sync makes what was announced outlive a loss of power. It does nothing if all
// of it does already.
func (t *transaction) sync() error {
	if !t.unsynced {
		return nil
	}
	t.changed = true
	if err := t.log.sync(); err != nil {
		return hard{fmt.Errorf("journal: %w", err)}
	}
	if !t.named {
		for _, dir := range []string{filepath.Dir(t.log.f.Name()), t.r.state} {
			if err := syncDir(dir); err != nil {
				return hard{fmt.Errorf("journal: %w", err)}
			}
		}
		t.named = true
	}
	t.unsynced = false
	return nil
}

// note announces that a folder's time will change.
func (t *transaction) note(f *folder) error {
	id := idOf(&f.st)
	if t.seen[id] {
		return nil
	}
	t.seen[id] = true
	t.unsynced = true
	m := &Meta{Mode: f.st.Mode & 0o7777, UID: int(f.st.Uid), GID: int(f.st.Gid), ModTime: time.Unix(f.st.Mtim.Unix()).UTC()}
	if err := t.log.add(&Change{Kind: kindTime, Path: []byte(f.path), Was: m}); err != nil {
		return hard{err}
	}
	return nil
}

// applier returns one for a number, with the folders that it needs.
func (t *transaction) applier(seq int) (*applier, error) {
	a, err := newApplier(t.r.dir, hasOpenat2())
	if err != nil {
		return nil, err
	}
	a.t, a.ev = t, Event{Seq: seq, Tx: t.id, From: t.log.end}
	a.inChunk, a.will = make(map[string]int), make(map[string]string)
	if a.own, a.ownID, err = t.r.stateBelow(); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// apply applies a stream to the root and keeps what it replaces.
func (t *transaction) apply(ctx context.Context, k key.Key, changes snapshot.Changes) (Result, error) {
	a, err := t.applier(t.next.nextSeq())
	if err != nil {
		return Result{}, err
	}
	fd, err := openPrivate(filepath.Join(t.r.state, "stage", strconv.Itoa(a.ev.Seq)))
	if err != nil {
		a.close()
		return Result{}, err
	}
	// What is made there must inherit nothing from it.
	if err := unix.Fremovexattr(fd, "system.posix_acl_default"); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
		unix.Close(fd)
		a.close()
		return Result{}, err
	}
	a.stageDir = &folder{fd: fd}
	res, err := a.run(ctx, changes)
	if err != nil {
		return res, err
	}
	ev := a.ev
	// What is under a step that could not be undone is applied anew with it.
	ev.Key, ev.To, ev.Incomplete = k, t.log.end, len(res.Problems) > 0 || t.next.Retry()
	slices.Sort(ev.Not)
	slices.Sort(ev.Again)
	t.next.Log = append(t.next.Log, ev)
	return res, nil
}

// Apply changes the root by the step's entries, in the transaction that the
// first Undo or Apply behind Lock or Commit begins.
//
// The error is a hard one (a full disk, a stream that is invalid, ctx): of the
// transaction nothing but Rollback is possible then. Entries that could not be
// made are in the Result, and the step counts as applied, incompletely.
func (l *Lock) Apply(ctx context.Context, step Applied, changes snapshot.Changes) (Result, error) {
	t, err := l.begin()
	if err != nil {
		return Result{}, err
	}
	var res Result
	if step.Digest != "" {
		if res, err = t.apply(ctx, step.Key, changes); err != nil {
			return res, err
		}
	}
	t.steps = append(t.steps, step)
	return res, nil
}

// Commit makes what was done since Lock, or the last Commit, lasting: of the
// composition as it is now the layers, with the keys of their steps and the
// environment, and the platform if none is recorded yet.
//
// After an error the root is as it was before; Rollback has been called.
func (l *Lock) Commit(platform string, layers []LayerKeys, env []Var) error {
	t, err := l.begin()
	if err != nil {
		return err
	}
	known := make(map[key.Key]Applied)
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
		layer := Layer{Name: k.Name, Env: k.Env}
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

// commit replaces the state by that of the transaction, which is what makes it
// done, and removes what only taking it back would have needed.
func (l *Lock) commit() error {
	t := l.tx
	if err := t.settle(); err != nil {
		return errors.Join(err, l.Rollback())
	}
	t.next.Tx = t.id
	err := t.r.saveState(&t.next, func(now time.Time) {
		for i := range t.next.Log {
			if t.next.Log[i].Tx == t.id {
				t.next.Log[i].Done = now
			}
		}
	})
	if err != nil {
		return errors.Join(err, l.Rollback())
	}
	l.tx = nil
	l.state = &t.next
	// It is done, whatever becomes of the rest: the next Lock does it again.
	_ = syncDir(t.r.state)
	_ = t.log.f.Close()
	_ = t.r.cleanup(l.state)
	return nil
}

// settle makes the changes of a transaction outlive a loss of power: before the
// state that says so, and before anything is deleted.
func (t *transaction) settle() error {
	if err := t.log.flush(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if !t.changed {
		return t.log.sync()
	}
	for _, dir := range []string{t.r.dir, t.r.state} {
		fd, err := unix.Open(dir, openFolder, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", dir, err)
		}
		err = syncfs(fd)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
		if on, err := sameFS(t.r.dir, t.r.state); err == nil && on {
			break
		}
	}
	return nil
}

func sameFS(x, y string) (bool, error) {
	var a, b unix.Stat_t
	err := errors.Join(unix.Stat(x, &a), unix.Stat(y, &b))
	return a.Dev == b.Dev, err
}

// cleanup removes what no apply of a state needs.
func (r *Root) cleanup(s *State) error {
	logs, originals := make(map[string]bool), make(map[string]bool)
	for _, ev := range slices.Concat(s.Log, s.Kept) {
		logs[filepath.Base(r.logPath(ev.Tx))] = true
		originals[filepath.Base(r.originalsPath(ev.Seq))] = true
	}
	errs := []error{removeTree(filepath.Join(r.state, "stage")), removeTree(filepath.Join(r.state, "trash"))}
	sweep := func(dir string, needed map[string]bool) {
		dir = filepath.Join(r.state, dir)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if !needed[e.Name()] {
				errs = append(errs, removeTree(filepath.Join(dir, e.Name())))
			}
		}
	}
	sweep("originals", originals)
	sweep("log", logs) // last: it has what says that the root was taken back
	return errors.Join(errs...)
}

// changedAt returns the time of the last change of an open file.
func changedAt(f *os.File) (time.Time, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return time.Unix(st.Ctim.Unix()), err
}
