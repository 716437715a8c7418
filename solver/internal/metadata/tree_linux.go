package metadata

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// dirTime is what a directory gets when all is in it.
type dirTime struct {
	path string
	time unix.Timespec
	mode int // -1: it has its mode
}

// A Tree is an open root that is changed. Its directories get their times when all is
// in them: the one that they had, or that was given to them since.
type Tree struct {
	*inroot.Dirs
	Unprivileged int     // owners and the like that this user may not set, and that were left out
	Foreign      Foreign // the owners among them that make a difference

	journal    *record.Journal // nil: nothing is recorded
	Privileged bool            // it may set owners, and make device nodes
	uid        int
	times      map[inroot.FileID]*dirTime

	unlocked []inroot.FileID // since SetTimes began again

	OtherXattrs bool // of what was made since it was unset: this user may not set the entry's
}

// Open opens a root. What changes of its directories is announced in the journal,
// if there is one.
func Open(sys inroot.Sys, dir string, j *record.Journal) (*Tree, error) {
	fs, err := sys.OpenDirs(dir)
	if err != nil {
		return nil, err
	}
	t := &Tree{Dirs: fs, journal: j, Privileged: inroot.Privileged(), uid: os.Geteuid(), times: make(map[inroot.FileID]*dirTime)}
	fs.Locked = t.locked
	return t, nil
}

// Beside returns a Tree of the same root for another goroutine, which counts by itself. It
// has no directories of its own.
func (t *Tree) Beside() *Tree { return &Tree{Dirs: t.Dirs, Privileged: t.Privileged, uid: t.uid} }

// locked announces that a directory is unlocked, and has it get its mode back with its
// time.
func (t *Tree) locked(p string, st *unix.Stat_t) error {
	f := &inroot.Dir{Path: p, St: *st}
	if err := t.NoteTime(f); err != nil {
		return err
	}
	if ft := t.times[inroot.IDOf(st)]; ft.mode < 0 {
		ft.mode = int(st.Mode & 0o7777)
	}
	t.unlocked = append(t.unlocked, inroot.IDOf(st))
	if t.journal == nil {
		return nil
	}
	return t.journal.Sync()
}

// Note announces that the metadata of a directory will change.
func (t *Tree) Note(f *inroot.Dir) error {
	if t.journal == nil {
		return nil
	}
	return t.journal.AddDir(inroot.IDOf(&f.St), f.Path, func() *record.Meta { return record.MetaOfStat(&f.St) })
}

// TimeOf returns the time that a directory will have.
func (t *Tree) TimeOf(st *unix.Stat_t) unix.Timespec {
	if known := t.times[inroot.IDOf(st)]; known != nil {
		return known.time
	}
	return st.Mtim
}

// ModeOf returns the mode that a directory will have.
func (t *Tree) ModeOf(st *unix.Stat_t) uint32 {
	if known := t.times[inroot.IDOf(st)]; known != nil && known.mode >= 0 {
		return uint32(known.mode)
	}
	return st.Mode & 0o7777
}

// NoteTime notes the time that a directory has, before something is put into it.
func (t *Tree) NoteTime(f *inroot.Dir) error {
	id := inroot.IDOf(&f.St)
	if t.times[id] == nil {
		t.times[id] = &dirTime{f.Path, f.St.Mtim, -1}
	}
	return t.Note(f)
}

// Unlock lets this user, who is not root, take something out of a directory that NoteTime
// has noted: one of Go's module cache, say. It gets its mode back with its time.
func (t *Tree) Unlock(f *inroot.Dir) error {
	const enter = unix.S_IWUSR | unix.S_IXUSR
	if t.uid == 0 || f.St.Mode&enter == enter || int(f.St.Uid) != t.uid {
		return nil
	}
	if err := t.Fstat(f.FD, &f.St); err != nil || f.St.Mode&enter == enter { // it has another one by now
		return err
	}
	mode := f.St.Mode & 0o7777
	if err := t.Fchmod(f.FD, mode|enter); err != nil {
		return err
	}
	f.St.Mode |= enter
	if ft := t.times[inroot.IDOf(&f.St)]; ft.mode < 0 {
		ft.mode = int(mode)
	}
	return nil
}

// SetMetadata gives an open directory its metadata: the time when all is in it, and then
// too the mode, where it would hinder this user in putting something in.
func (t *Tree) SetMetadata(fd int, e *snapshot.Entry, old map[string][]byte, created bool) error {
	mode, err := t.Attributes(fd, e, old)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := t.Fstat(fd, &st); err != nil {
		return err
	}
	later := -1
	if st.Mode&0o7777 != mode {
		later = int(mode)
	}
	t.SetLater(&st, e, later, created)
	return nil
}

// SetLater has a directory get the time of its entry when all is in it, and then too a
// mode, unless that is -1. created says that nothing was there before.
func (t *Tree) SetLater(st *unix.Stat_t, e *snapshot.Entry, mode int, created bool) {
	t.times[inroot.IDOf(st)] = &dirTime{e.Path, inroot.Timespec(e.ModTime), mode}
	if created && t.journal != nil {
		t.journal.Made(inroot.IDOf(st))
	}
}

// ForgetTime has a directory that is moved away get no time.
func (t *Tree) ForgetTime(st *unix.Stat_t) { delete(t.times, inroot.IDOf(st)) }

// SetTimes gives the directories their times, and the modes that had to wait: a
// directory before those above, which may then not be entered any more.
func (t *Tree) SetTimes() error {
	ids := slices.Collect(maps.Keys(t.times))
	var errs []error
	for len(ids) > 0 {
		slices.SortFunc(ids, func(x, y inroot.FileID) int { return strings.Compare(t.times[y].path, t.times[x].path) })
		t.unlocked = nil
		for _, id := range ids {
			ft := t.times[id]
			err := t.setTime(id, ft)
			if err != nil && (inroot.IsHard(err) || t.journal != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES)) {
				errs = append(errs, inroot.Hard(fmt.Errorf("time of %q: %w", ft.path, err)))
			}
		}
		ids = t.unlocked // again, on the way to another
	}
	return errors.Join(errs...)
}

func (t *Tree) setTime(id inroot.FileID, ft *dirTime) error {
	f, err := t.Get(ft.path)
	if err != nil {
		return inroot.UnlessMissing(err) // deleted, or replaced, by a later entry
	}
	fd := f.FD
	var st unix.Stat_t
	if err := t.Fstat(fd, &st); err != nil || inroot.IDOf(&st) != id {
		return err
	}
	if st.Mtim != ft.time {
		// By the directory itself: /proc need not be mounted here. And before the
		// mode, with which "." may not be entered any more.
		err = t.Utimensat(fd, ".", st.Atim, ft.time)
	}
	if ft.mode >= 0 {
		err = errors.Join(err, t.Fchmod(fd, uint32(ft.mode)))
	}
	return err
}
