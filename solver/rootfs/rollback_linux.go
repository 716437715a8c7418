package rootfs

import (
	"fmt"

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
	of := rollback.Root{Dir: r.dir, State: r.state, Sys: r.sys, Sync: r.sync, Spending: spending, Below: r.below}
	if l.unsynced.MayLack() {
		of.Skip = func(path string, _ error) bool {
			l.lost().Paths = append(l.lost().Paths, path)
			return true
		}
	}
	left, err := rollback.Run(of, record.LogName(tx))
	if err != nil {
		return err
	}
	err = spending(func() (err error) {
		l.state, err = rollback.Record(r.state, l.state, tx, left)
		return err
	})
	if err != nil {
		return err
	}
	for _, x := range left {
		l.Preserved = append(l.Preserved, Preserved{x.Path, x.Why})
	}
	return spending(func() error { return r.state.Held().Rename(record.LogName(tx), record.RolledBack) })
}
