package unsynced

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// Settle has all that was done to a root outlive a loss of power, and removes the mark: after
// the changes, and before the end. With NoSync the mark stays, and so does the doubt.
func Settle(sys inroot.Sys, root string, d record.Dir) error {
	top, err := sys.OpenDir(root)
	if errors.Is(err, unix.ENOENT) {
		return nil // it was never made
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(top)
	if err := sys.Settle(top); err != nil {
		return fmt.Errorf("sync %s: %w", root, err)
	}
	if there, err := d.Exists(Name); err != nil || !there || d.Sys().Durability == durability.NoSync {
		return err // the state itself is gone, with all that was applied
	}
	state, err := d.Held().OpenFD(".")
	if err != nil {
		return err
	}
	defer unix.Close(state)
	if !sameFileSystem(top, state) {
		if err := d.Sys().Settle(state); err != nil {
			return fmt.Errorf("sync %s: %w", d, err)
		}
	}
	if err := d.Held().Remove(Name); err != nil {
		return err
	}
	// What is left to write is that the mark is gone.
	if err := d.Sys().Settle(state); err != nil {
		return fmt.Errorf("sync %s: %w", d, err)
	}
	return nil
}

func sameFileSystem(a, b int) bool {
	var x, y unix.Stat_t
	return errors.Join(unix.Fstat(a, &x), unix.Fstat(b, &y)) == nil && x.Dev == y.Dev
}

// Salvage moves aside what a transaction had moved, where a loss of power may have taken
// the lines that say from where: it is deleted otherwise. It is called when all that is
// known was rolled back, and returns where that is; "" where there is nothing.
func Salvage(d record.Dir, s *record.State) (saved string, err error) {
	own := d.Held()
	needed := make(map[string]bool)
	for _, ev := range append(append([]record.Event(nil), s.Log...), s.Preserved...) {
		needed[path.Base(record.OriginalsName(ev.Seq))] = true
	}
	if p := s.Profile; p != nil {
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
		saved = d.Path(at)
		return own.Rename(name, path.Join(at, path.Base(name)))
	}
	all, err := own.ReadDir("originals")
	if err != nil {
		return "", err
	}
	for _, e := range all {
		if !needed[e.Name()] {
			err = errors.Join(err, move(path.Join("originals", e.Name())))
		}
	}
	if err = errors.Join(err, move("trash")); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return saved, err
}

// Review compares what was applied, and may not have been on the disk, with the root. A
// step of which something is missing becomes incomplete in the state, so that the next solve
// applies it again. It reports whether there is any, and adds to lost what is missing.
func (m *Mark) Review(sys inroot.Sys, root string, d record.Dir, s *record.State, lost func() *Lost) (differs bool, err error) {
	for _, list := range [][]record.Event{s.Log, s.Preserved} {
		for i := range list {
			ev := &list[i]
			if !m.since(ev) {
				continue
			}
			known, err := d.Known(*ev)
			if err != nil {
				return false, err
			}
			if n := ev.To - ev.From - known; n > 0 {
				lost().Bytes += n
				ev.To, ev.Incomplete, differs = ev.From+known, true, true
			}
		}
	}
	damaged, err := drift.Damaged(context.Background(), sys, root, d, s, m.since)
	if err != nil {
		return false, err
	}
	for i := range s.Log {
		if n := damaged[s.Log[i].Seq]; n > 0 {
			lost().Files += n
			s.Log[i].Incomplete, differs = true, true
		}
	}
	return differs, nil
}
