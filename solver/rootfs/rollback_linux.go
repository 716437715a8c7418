package rootfs

import (
	"errors"
	"fmt"
	"slices"

	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/rollback"
)

// Rollback rolls back all that was done since Lock, or the last Commit. What it
// can't finish, the next Lock does.
func (l *Lock) Rollback() error {
	t := l.tx
	if t == nil {
		return nil
	}
	l.tx = nil
	// Lines that never reached the file announce nothing that was done.
	_ = t.journal.Close()
	if err := l.rollback(t.id); err != nil {
		return fmt.Errorf("%s is partially changed; the next command resumes the rollback: %w", l.root.dir, err)
	}
	return l.root.cleanup(l.state)
}

// rollback rolls back the changes of a transaction that was not committed. From here
// on its log must not be followed again, since cleanup removes that by which it says
// what was done.
func (l *Lock) rollback(tx int) error {
	r := l.root
	spending := func(op func() error) error { return r.spending(0, op) }
	left, err := rollback.Run(rollback.Root{Dir: r.dir, State: r.state, Sys: r.sys, Sync: r.sync, Spending: spending, Below: r.below}, record.LogName(tx))
	if err != nil {
		return err
	}
	if err := spending(func() error { return l.recordLeft(tx, left) }); err != nil {
		return err
	}
	for _, x := range left {
		l.Preserved = append(l.Preserved, Preserved{x.Path, x.Why})
	}
	return spending(func() error { return r.state.Held().Rename(record.LogName(tx), record.RolledBack) })
}

// recordLeft records what a rollback left as the user has it, with its originals, as what
// an undo has preserved: in a log of its own.
func (l *Lock) recordLeft(tx int, left []rollback.Left) (err error) {
	left = slices.DeleteFunc(slices.Clone(left), func(x rollback.Left) bool { return x.Change == nil })
	if len(left) == 0 {
		return nil
	}
	slices.Reverse(left) // as the changes were made
	slices.SortStableFunc(left, func(x, y rollback.Left) int { return x.Change.Seq - y.Change.Seq })
	next := *l.state
	next.Tx, next.Preserved = tx+1, slices.Clone(next.Preserved)
	if err := l.root.state.Held().Remove(record.LogName(next.Tx)); err != nil { // of a rollback that was cut off
		return err
	}
	journal, err := l.root.state.NewJournal(next.Tx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	for i, x := range left {
		if c := x.Change; i == 0 || c.Seq != left[i-1].Change.Seq {
			next.Seq = max(next.Seq, c.Seq)
			next.Preserved = append(next.Preserved, record.Event{Seq: c.Seq, Tx: next.Tx, From: journal.End()})
		}
		c := *x.Change
		c.Left, c.Again = true, 0
		if err := journal.Add(&c); err != nil {
			return err
		}
		next.Preserved[len(next.Preserved)-1].To = journal.End()
	}
	if err := journal.Sync(); err != nil {
		return err
	}
	if err := l.root.state.Save(&next, nil, nil); err != nil {
		return err
	}
	l.state = &next
	return nil
}
