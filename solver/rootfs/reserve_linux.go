package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// The reserve is space and files that are set aside, so that a disk on which
// nothing is free can be undone on: files of equal size in the state directory. It
// grows before something is done to the root that takes more to undo, which fails
// if it cannot. Where an undo or a rollback then finds the disk full, it removes one
// of the files, and tries again.

const (
	// reserveBytes and reserveFiles are what any undo takes: its journal, a
	// directory of the trash, state.json written again; and a second link, or a
	// whiteout of an overlay, for a moment.
	reserveBytes = 48 << 10
	reserveFiles = 6

	// rollbackFiles of the reserve are not for an undo, but for rolling it back.
	rollbackFiles = 2
)

// pieces returns how many files the reserve has, and of what size, that is
// enough for an undo.
func pieces(need record.Space) (n int, size int64) {
	forUndo := need.Files + reserveFiles
	size = (need.Bytes + reserveBytes + forUndo - 1) / forUndo
	const page = 4096
	return int(forUndo) + rollbackFiles, (size + page - 1) / page * page
}

func pieceName(i int) string { return path.Join("reserve", strconv.Itoa(i)) }

// growReserve sets aside what an undo takes.
func (r *Root) growReserve(need record.Space) error {
	n, size := pieces(need)
	fd, err := r.state.Held().OpenPrivate("reserve")
	if err == nil {
		unix.Close(fd)
	}
	for i := 0; i < n && err == nil; i++ {
		err = r.growPiece(pieceName(i), size)
	}
	if err != nil {
		return fmt.Errorf("set aside what undo takes: %w", err)
	}
	return nil
}

func (r *Root) growPiece(name string, size int64) error {
	f, err := r.state.Held().OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() >= size {
		return err
	}
	return r.sys.Allocate(f, size)
}

func (r *Root) shrinkPiece(name string, size int64) error {
	f, err := r.state.Held().OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(r.sys.Ftruncate(int(f.Fd()), size), f.Close())
}

// ReserveForRun sets aside what recording the changes of a RUN in place takes, and
// undoing them, should the disk be full when somebody recovers from it.
func (l *Lock) ReserveForRun() error {
	return l.root.growReserve(l.state.UndoNeeds().Plus(runSpace))
}

// runSpace is for about a thousand changes.
var runSpace = record.Space{Bytes: 512 << 10, Files: 4}

// Spending calls op, and again for each piece of the reserve that is freed, while it
// fails since the disk is full.
func (l *Lock) Spending(op func() error) error { return l.root.spending(rollbackFiles, op) }

// fitReserve makes the reserve what undoing a state takes, as far as the disk has
// space for it. It stays as it is while a RUN in place is under way.
func (r *Root) fitReserve(s *record.State) error {
	if runs, err := r.state.Exists(RunningName); runs || err != nil {
		return err
	}
	if s.Pristine() {
		return r.state.Held().RemoveAll("reserve")
	}
	n, size := pieces(s.UndoNeeds())
	have, err := r.state.Held().ReadDir("reserve")
	if err != nil {
		return err
	}
	missing := len(have) < n
	for _, e := range have {
		i, err := strconv.Atoi(e.Name())
		if err != nil || i >= n {
			if err := r.state.Held().Remove(path.Join("reserve", e.Name())); err != nil {
				return err
			}
			continue
		}
		info, err := r.state.Held().Stat(pieceName(i))
		if err != nil {
			return err
		}
		missing = missing || info.Size() < size
		if info.Size() > size {
			if err := r.shrinkPiece(pieceName(i), size); err != nil && !inroot.IsFull(err) {
				return err
			}
		}
	}
	if !missing {
		return nil
	}
	if err := r.growReserve(s.UndoNeeds()); err != nil && !inroot.IsFull(err) && !errors.Is(err, unix.EROFS) {
		return err
	}
	return nil
}

// spend frees a piece of the reserve, if it has more than some. It reports whether
// it did.
func (r *Root) spend(but int) bool {
	have, err := r.state.Held().ReadDir("reserve")
	if err != nil || len(have) <= but {
		return false
	}
	names := make([]string, len(have))
	for i, e := range have {
		names[i] = e.Name()
	}
	return r.state.Held().Remove(path.Join("reserve", slices.Max(names))) == nil
}

// spending calls op, and again for each piece of the reserve that is freed, while it
// fails since the disk is full.
func (r *Root) spending(but int, op func() error) error {
	for {
		err := op()
		if !inroot.IsFull(err) || !r.spend(but) {
			return err
		}
	}
}

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
	t.journal.Spend = func() bool { return t.r.spend(rollbackFiles) }
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
	if err := t.r.growReserve(need); err != nil {
		return err
	}
	t.reserved = need
	return nil
}
