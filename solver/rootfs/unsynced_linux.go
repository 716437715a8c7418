package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// mark notes that what is done from here on is not synced at once.
func (l *Lock) mark() error {
	if l.unsynced != nil || !l.root.syncsLater() {
		return nil
	}
	u := unsynced{Boot: durability.Boot(), Tx: l.state.Tx}
	data, err := json.Marshal(u)
	if err != nil {
		return err
	}
	err = l.root.spending(rollbackFiles, func() error { return l.root.state.ReplaceFile(unsyncedName, data) })
	if err == nil {
		l.unsynced = &u
	}
	return err
}

// settle has all that was done outlive a loss of power, before the lock is given back, and
// removes the mark that says that it may not: after the changes, and before the end. With
// NoSync the mark stays, and so does the doubt.
func (l *Lock) settle() error {
	if l.unsynced == nil {
		return nil
	}
	r := l.root
	top, err := r.sys.OpenDir(r.dir)
	if errors.Is(err, unix.ENOENT) {
		return nil // it was never made
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", r.dir, err)
	}
	defer unix.Close(top)
	if err := r.sys.Settle(top); err != nil {
		return fmt.Errorf("sync %s: %w", r.dir, err)
	}
	if there, err := r.state.Exists(unsyncedName); err != nil || !there || r.state.Sys().Durability == durability.NoSync {
		return err // the state itself is gone, with all that was applied
	}
	state, err := r.state.Held().OpenFD(".")
	if err != nil {
		return err
	}
	defer unix.Close(state)
	if !sameFileSystem(top, state) {
		if err := r.state.Sys().Settle(state); err != nil {
			return fmt.Errorf("sync %s: %w", r.state, err)
		}
	}
	if err := r.state.Held().Remove(unsyncedName); err != nil {
		return err
	}
	l.unsynced = nil
	// What is left to write is that the mark is gone.
	if err := r.state.Sys().Settle(state); err != nil {
		return fmt.Errorf("sync %s: %w", r.state, err)
	}
	return nil
}

func sameFileSystem(a, b int) bool {
	var x, y unix.Stat_t
	return errors.Join(unix.Fstat(a, &x), unix.Fstat(b, &y)) == nil && x.Dev == y.Dev
}

// salvage moves aside what a transaction had moved, where a loss of power may have taken
// the lines that say from where: it is deleted otherwise. It is called when all that is
// known was rolled back.
func (l *Lock) salvage() error {
	own := l.root.state.Held()
	needed := make(map[string]bool)
	for _, ev := range append(append([]record.Event(nil), l.state.Log...), l.state.Preserved...) {
		needed[path.Base(record.OriginalsName(ev.Seq))] = true
	}
	if p := l.state.Profile; p != nil {
		needed[path.Base(record.OriginalsName(p.Seq))] = true
	}
	at := path.Join("lost", strconv.FormatInt(time.Now().Unix(), 10))
	move := func(name string) error {
		left, err := own.ReadDir(name)
		if err != nil || len(left) == 0 {
			return err
		}
		if err := own.MkdirAll(at, 0o700); err != nil {
			return err
		}
		l.lost().Saved = l.root.state.Path(at)
		return own.Rename(name, path.Join(at, path.Base(name)))
	}
	all, err := own.ReadDir("originals")
	if err != nil {
		return err
	}
	for _, e := range all {
		if !needed[e.Name()] {
			err = errors.Join(err, move(path.Join("originals", e.Name())))
		}
	}
	return errors.Join(err, move("trash"))
}

// review compares what was applied, and may not have been on the disk, with the root. A
// step of which something is missing counts as incomplete: the next solve applies it again.
func (l *Lock) review() error {
	u := l.unsynced
	t, err := l.begin()
	if err != nil {
		return err
	}
	differs := false
	for _, list := range [][]record.Event{t.next.Log, t.next.Preserved} {
		for i := range list {
			ev := &list[i]
			if !u.since(ev) {
				continue
			}
			known, err := l.root.state.Known(*ev)
			if err != nil {
				return errors.Join(err, l.Rollback())
			}
			if lost := ev.To - ev.From - known; lost > 0 {
				l.lost().Bytes += lost
				ev.To, ev.Incomplete, differs = ev.From+known, true, true
			}
		}
	}
	damaged, err := drift.Damaged(context.Background(), l.root.sys, l.root.dir, l.root.state, &t.next, u.since)
	if err != nil {
		return errors.Join(err, l.Rollback())
	}
	for i := range t.next.Log {
		if n := damaged[t.next.Log[i].Seq]; n > 0 {
			l.lost().Files += n
			t.next.Log[i].Incomplete, differs = true, true
		}
	}
	if !differs {
		err = l.Rollback()
	} else {
		err = l.commit()
	}
	if err == nil { // what there is now was read from the disk
		l.unsynced, err = nil, l.root.state.Held().Remove(unsyncedName)
	}
	if err == nil && differs {
		err = l.mark()
	}
	return err
}

// afterPowerLoss is called when what was cut off is rolled back. What it finds is in Lost.
func (l *Lock) afterPowerLoss() error {
	if err := l.salvage(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.root.cleanup(l.state); err != nil {
		return err
	}
	return l.review()
}
