// Package reserve sets space and files of a disk aside, so that one on which nothing is
// free can be undone on.
package reserve

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

// A Reserve is that of a root: files of equal size in the state directory, which is open. It
// grows before something is done to the root that takes more to undo, which fails
// if it cannot. Where an undo or a rollback then finds the disk full, it removes one
// of the files, and tries again.
type Reserve struct {
	State record.Dir
	Sys   inroot.Sys
}

const (
	// reserveBytes and reserveFiles are what any undo takes: its journal, a
	// directory of the trash, state.json written again; and a second link, or a
	// whiteout of an overlay, for a moment.
	reserveBytes = 48 << 10
	reserveFiles = 6

	// RollbackFiles of the reserve are not for an undo, but for rolling it back.
	RollbackFiles = 2
)

// pieces returns how many files the reserve has, and of what size, that is
// enough for an undo.
func pieces(need record.Space) (n int, size int64) {
	forUndo := need.Files + reserveFiles
	size = (need.Bytes + reserveBytes + forUndo - 1) / forUndo
	const page = 4096
	return int(forUndo) + RollbackFiles, (size + page - 1) / page * page
}

func pieceName(i int) string { return path.Join("reserve", strconv.Itoa(i)) }

// Grow sets aside what an undo takes.
func (r Reserve) Grow(need record.Space) error {
	n, size := pieces(need)
	fd, err := r.State.Held().OpenPrivate("reserve")
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

func (r Reserve) growPiece(name string, size int64) error {
	f, err := r.State.Held().OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() >= size {
		return err
	}
	return r.Sys.Allocate(f, size)
}

func (r Reserve) shrinkPiece(name string, size int64) error {
	f, err := r.State.Held().OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(r.Sys.Ftruncate(int(f.Fd()), size), f.Close())
}

// Fit makes the reserve what undoing a state takes, as far as the disk has space for it.
func (r Reserve) Fit(s *record.State) error {
	if s.Pristine() {
		return r.State.Held().RemoveAll("reserve")
	}
	n, size := pieces(s.UndoNeeds())
	have, err := r.State.Held().ReadDir("reserve")
	if err != nil {
		return err
	}
	missing := len(have) < n
	for _, e := range have {
		i, err := strconv.Atoi(e.Name())
		if err != nil || i >= n {
			if err := r.State.Held().Remove(path.Join("reserve", e.Name())); err != nil {
				return err
			}
			continue
		}
		info, err := r.State.Held().Stat(pieceName(i))
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
	if err := r.Grow(s.UndoNeeds()); err != nil && !inroot.IsFull(err) && !errors.Is(err, unix.EROFS) {
		return err
	}
	return nil
}

// Spend frees a piece of the reserve, if it has more than some. It reports whether
// it did.
func (r Reserve) Spend(but int) bool {
	have, err := r.State.Held().ReadDir("reserve")
	if err != nil || len(have) <= but {
		return false
	}
	names := make([]string, len(have))
	for i, e := range have {
		names[i] = e.Name()
	}
	return r.State.Held().Remove(path.Join("reserve", slices.Max(names))) == nil
}

// Spending calls op, and again for each piece of the reserve that is freed, while it
// fails since the disk is full.
func (r Reserve) Spending(but int, op func() error) error {
	for {
		err := op()
		if !inroot.IsFull(err) || !r.Spend(but) {
			return err
		}
	}
}
