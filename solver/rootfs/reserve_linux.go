package rootfs

import (
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/reserve"
)

const rollbackFiles = reserve.RollbackFiles

func (r *Root) reserve() reserve.Reserve { return reserve.Reserve{State: r.state, Sys: r.sys} }

func (r *Root) spending(but int, op func() error) error { return r.reserve().Spending(but, op) }

// fitReserve makes the reserve what undoing a state takes. It stays as it is while a RUN in
// place is under way.
func (r *Root) fitReserve(s *record.State) error {
	if runs, err := r.state.Exists(RunningName); runs || err != nil {
		return err
	}
	return r.reserve().Fit(s)
}

// ReserveForRun sets aside what recording the changes of a RUN in place takes, and
// undoing them, should the disk be full when somebody recovers from it.
func (l *Lock) ReserveForRun() error {
	return l.root.reserve().Grow(l.state.UndoNeeds().Plus(runSpace))
}

// runSpace is for about a thousand changes.
var runSpace = record.Space{Bytes: 512 << 10, Files: 4}

// Spending calls op, and again for each piece of the reserve that is freed, while it
// fails since the disk is full.
func (l *Lock) Spending(op func() error) error { return l.root.spending(rollbackFiles, op) }

// spending is Root.spending for an undo: an apply fails on a full disk, and leaves
// the reserve to those after it.
func (t *transaction) spending(op func() error) error {
	if !t.spends {
		return op()
	}
	return t.r.spending(rollbackFiles, op)
}

// undoes makes the transaction use the reserve.
func (t *transaction) undoes() {
	t.spends, t.reserved, t.journal.Reserve = true, record.Space{}, nil
	t.journal.Spend = func() bool { return t.r.reserve().Spend(rollbackFiles) }
}

// applies makes the transaction leave the reserve alone, and let it grow by what is
// announced from here on. The function that it returns says how much that was.
func (t *transaction) applies() (space func() record.Space) {
	t.spends, t.journal.Spend = false, nil
	begin, before := t.journal.Needs(), t.next.UndoNeeds()
	space = func() record.Space { return t.journal.Needs().Minus(begin) }
	t.journal.Reserve = func() error { return t.reserve(before.Plus(space())) }
	return space
}

// reserve is growReserve, by more than is needed at once: each call is for a chunk of
// changes.
func (t *transaction) reserve(need record.Space) error {
	if need.Bytes <= t.reserved.Bytes && need.Files <= t.reserved.Files {
		return nil
	}
	if t.reserved != (record.Space{}) {
		need.Bytes += need.Bytes / 4
	}
	if err := t.r.reserve().Grow(need); err != nil {
		return err
	}
	t.reserved = need
	return nil
}
