// Package rollback takes back what a transaction has done to a root, by the lines of its
// log, from wherever it was cut off. It writes next to nothing, so that a full disk does
// not stop it.
package rollback

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// A Root is what is rolled back, and how.
type Root struct {
	Dir      string
	State    record.Dir // open
	Sys      inroot.Sys
	Sync     func() error                // has what was done be durable
	Spending func(op func() error) error // calls op, and again where a disk that was full has space

	// Skip, if not nil, is asked about a line that cannot be rolled back, since lines after
	// it are lost: whether to go on without it.
	Skip func(path string, err error) bool

	// Below returns the database that is at a path in the root that this one is layered
	// over; nil where there is none.
	Below func(path string) ([]byte, *record.Meta, error)
}

// A Left is a path that stays as the user has made it since the transaction changed it.
type Left struct {
	Path string // relative to the root
	Why  string

	// Change is what the transaction did there, of which something is left to undo; nil:
	// nothing is.
	Change *record.Change
}

// Run rolls back the changes in a log, from the last to the first. What each line
// announces was done wholly, in part, or not at all, which is seen by where things are;
// doing it twice does no harm. Where the root is not even there, nothing was done. What
// the user changed of it since stays, and is returned.
func Run(r Root, log string) ([]Left, error) {
	fs, err := r.Sys.OpenDirs(r.Dir)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	own, err := r.State.Held().OpenFD(".")
	if err != nil {
		return nil, err
	}
	b := &rollback{
		Dirs: fs, r: r, own: r.Sys.DirsOf(own), log: log,
		again: make(map[[2]int]bool), modes: make(map[inroot.FileID]unlocked), later: make(map[string]bool),
		with: make(map[[2]int]map[string]*record.Change), users: make(map[string]bool),
	}
	b.Writes, b.Locked, b.own.Locked = true, b.locked, func(string, *unix.Stat_t) error { return nil }
	defer b.own.Close()
	var verified int64
	for c, err := range record.ReadBackward(r.State, b.log, 0, -1, &verified) {
		if err == nil {
			b.end = c.End
			err = r.Spending(func() error { return b.line(&c) })
			if err != nil && r.Skip != nil && !inroot.IsHard(err) && r.Skip(string(c.Path), err) {
				err = nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("roll back %q: %w", c.Path, err)
		}
	}
	if err := b.lock(); err != nil {
		return nil, err
	}
	return b.left, r.Sync() // before the log goes, which says what to do
}

type rollback struct {
	*inroot.Dirs
	r     Root
	own   *inroot.Dirs // the state directory
	log   string
	end   int64 // of the line that is rolled back, in the log
	again map[[2]int]bool
	modes map[inroot.FileID]unlocked // of directories whose line is still to come
	later map[string]bool            // paths of lines that must not be followed twice, and those above

	with  map[[2]int]map[string]*record.Change // by apply and number of a new directory, what came with it
	left  []Left
	users map[string]bool // paths that are left
}

// unlocked is a directory that was unlocked, and the mode that it had.
type unlocked struct {
	path string
	mode uint32
}

// locked notes the mode of a directory that is unlocked. It has a line in the log, but
// for one that somebody locked since.
func (b *rollback) locked(p string, st *unix.Stat_t) error {
	b.modes[inroot.IDOf(st)] = unlocked{p, st.Mode & 0o7777}
	return nil
}

// lock gives the directories that were unlocked, and are still there, their modes: the
// lowest first.
func (b *rollback) lock() error {
	var errs []error
	lowest := func(x, y inroot.FileID) int { return strings.Compare(b.modes[y].path, b.modes[x].path) }
	for len(b.modes) > 0 { // some of them again, on the way to others
		for _, id := range slices.SortedFunc(maps.Keys(b.modes), lowest) {
			was := b.modes[id]
			f, err := b.GetReal(was.path)
			if err == nil && inroot.IDOf(&f.St) == id {
				err = b.Fchmod(f.FD, was.mode)
			}
			delete(b.modes, id)
			errs = append(errs, inroot.UnlessMissing(err))
		}
	}
	return errors.Join(errs...)
}

// place is a name in an open directory.
type place struct {
	fd   int
	name string
}

// once notes that a line goes by what stands at its path, and would take for that what
// an earlier line puts back there.
func (b *rollback) once(p string) {
	for ; !b.later[p] && p != "."; p = path.Dir(p) {
		b.later[p] = true
	}
}

// endLog ends the log after this line, if what the line puts back could be taken for
// what later lines made at the path, or below: a rollback that is killed from here on
// is resumed with this line. That takes no space.
func (b *rollback) endLog(p string) error {
	if !b.later[p] {
		return nil
	}
	if err := b.r.Sync(); err != nil {
		return err
	}
	f, err := b.r.State.Held().OpenFile(b.log, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = b.r.Sys.Ftruncate(int(f.Fd()), b.end)
	if err == nil {
		err = b.r.Sys.SyncFile(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		clear(b.later)
	}
	return err
}

func (b *rollback) line(c *record.Change) error {
	p := string(c.Path)
	switch {
	case c.Kind == record.KindTime:
		// Before the first change in the directory: what is rolled back after this
		// line, which stands before it, is not in it.
		b.once(p)
		return b.restore(p, c.Was, false)
	case c.Kind == record.KindTemp:
		f, err := b.GetReal(path.Dir(p))
		if err == nil {
			err = b.Unlinkat(f.FD, path.Base(p), 0)
		}
		return inroot.UnlessMissing(err)
	case b.users[p]:
		return nil
	case c.Kind == record.KindUndo && c.Was != nil:
		if err := b.undo(c, c.In, c.Out); err != nil {
			return err
		}
		// What came was given another mode, to be moved.
		in, err := b.waiting(nil, c.In)
		if err != nil || in.fd < 0 {
			return err
		}
		return inroot.UnlessMissing(b.Fchmodat(in.fd, in.name, c.Was.Mode))
	case c.Kind == record.KindUndo:
		return b.undo(c, c.In, c.Out)
	case b.again[[2]int{c.Seq, c.N}]:
		return nil
	case c.Again > 0:
		b.again[[2]int{c.Seq, c.N}] = true
	}
	if c.With > 0 && !c.Left {
		b.noteWith(c)
	}
	if c.Preserved || c.Lost || c.Left || c.With > 0 {
		return nil
	}
	if c.Was != nil {
		b.once(p)
		return b.restore(p, c.Was, true)
	}
	n := strconv.Itoa(c.N)
	out := record.OriginalName(c.Seq, c.N)
	switch {
	case c.Kind == record.KindGone:
		return b.undo(c, "", out)
	case c.Kind == record.KindDir && !c.Whole:
		defer b.once(p)
		return b.undo(c, record.InMade, out)
	case c.Beside:
		defer b.once(p)
		return b.undo(c, record.InBeside+record.TempName(c.Seq, c.N), out)
	}
	from := n
	if len(c.From) > 0 {
		from = string(c.From)
	}
	return b.undo(c, path.Join("stage", strconv.Itoa(c.Seq), from), out)
}

// A goneError says that what stood somewhere cannot come back: it is where the error names.
type goneError string

func (e goneError) Error() string {
	return "its directory is gone; what stood there is " + string(e)
}

func (e goneError) Unwrap() error { return unix.ENOENT }

// undo rolls back one change of a path: what came in goes back to where it was,
// and what went out comes back.
func (b *rollback) undo(c *record.Change, in, out string) error {
	p := string(c.Path)
	f, err := b.GetReal(path.Dir(p))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		f = nil // then it was not done, or else someone took the directory away
	} else if err != nil {
		return err
	}
	if f == nil && strings.HasPrefix(out, record.InBeside) {
		return nil
	}
	from, err := b.waiting(f, out)
	if err != nil {
		return err
	}
	original, err := b.stat(from, out != "")
	if err != nil {
		return err
	}
	if f == nil {
		if original != nil {
			return goneError(b.r.State.Path(out))
		}
		return nil
	}
	if original != nil {
		if err := b.endLog(p); err != nil {
			return err
		}
	}
	at := place{f.FD, path.Base(p)}
	here, err := b.stat(at, true)
	if err != nil {
		return err
	}
	if here != nil && original != nil && inroot.IDOf(here) == inroot.IDOf(original) {
		return b.Unlinkat(from.fd, from.name, 0) // a second link to what stands there: nothing came in yet
	}
	if inroot.IsDir(here) || inroot.IsLink(here) {
		b.Forget(f, at.name)
	}
	came, err := b.cameIn(f, in, here)
	var mayBeUsers bool
	if err == nil {
		mayBeUsers, err = b.mayBeUsers(f, in, came, here, original)
	}
	if err == nil && mayBeUsers {
		var stays bool
		if stays, err = b.stays(c, in, came, at, here, from, original); stays || err != nil {
			return err
		}
		if from, err = b.waiting(f, out); err == nil {
			original, err = b.stat(from, out != "")
		}
	}
	if err != nil {
		return err
	}
	if came {
		if in == record.InMade {
			err = b.Unlinkat(at.fd, at.name, unix.AT_REMOVEDIR)
			if errors.Is(err, unix.ENOTEMPTY) {
				err = nil // it is another line's, or holds what is not clayer's
			}
		} else {
			var to place
			if to, err = b.waiting(f, in); err == nil {
				err = b.moveOut(at, to, original != nil && !inroot.IsDir(original) && !inroot.IsDir(here))
			}
			here = nil
		}
		if err != nil {
			return err
		}
	}
	if original == nil {
		return nil
	}
	if in != record.InMade && inroot.IsDir(original) && inroot.IsDir(here) { // it was being moved file by file
		return b.moveTreeBack(from, at)
	}
	if err := b.Free(from.fd, from.name); err != nil {
		return err
	}
	return b.Renameat(from.fd, from.name, at.fd, at.name, 0)
}

// moveTreeBack puts what a directory holds, which was being moved, back into what is
// left of it.
func (b *rollback) moveTreeBack(from, to place) error {
	src, err := b.open(from)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := b.open(to)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	names, err := b.List(src)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := b.Renameat(src, n, dst, n, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			err = b.moveTreeBack(place{src, n}, place{dst, n})
		}
		if err != nil {
			return err
		}
	}
	return b.Unlinkat(from.fd, from.name, unix.AT_REMOVEDIR)
}

// open opens a directory that was being moved, whatever its mode: its line gives it back.
func (b *rollback) open(at place) (int, error) {
	if err := b.Free(at.fd, at.name); err != nil {
		return -1, err
	}
	return b.OpenDirAt(at.fd, at.name)
}

// cameIn reports whether what stands at a path came with a change.
func (b *rollback) cameIn(f *inroot.Dir, in string, here *unix.Stat_t) (bool, error) {
	switch {
	case in == "" || here == nil:
		return false, nil
	case in == record.InMade:
		return inroot.IsDir(here), nil
	}
	from, err := b.waiting(f, in)
	if err != nil {
		return false, err
	}
	st, err := b.stat(from, true)
	return err == nil && st == nil, err
}

// waiting is where what came in was before, or what went out is.
func (b *rollback) waiting(f *inroot.Dir, in string) (place, error) {
	if name, ok := strings.CutPrefix(in, record.InBeside); ok {
		return place{f.FD, name}, nil
	}
	dir, err := b.own.GetReal(path.Dir(in))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return place{-1, in}, nil // nothing is there
	}
	if err != nil {
		return place{}, fmt.Errorf("open %s: %w", b.r.State.Path(path.Dir(in)), err)
	}
	return place{dir.FD, path.Base(in)}, nil
}

// moveOut moves what came in to where it was, also what is needed no more: its
// place shows, should this be cut off too, that it has been rolled back. By a
// second link, where something takes its name at once.
func (b *rollback) moveOut(at, to place, replaced bool) error {
	if replaced {
		err := b.r.Spending(func() error { return b.Linkat(at.fd, at.name, to.fd, to.name) })
		if !inroot.NoSecondLink(err) {
			return err
		}
	}
	if err := b.Free(at.fd, at.name); err != nil {
		return err
	}
	return b.Renameat(at.fd, at.name, to.fd, to.name, unix.RENAME_NOREPLACE)
}

func (b *rollback) stat(p place, wanted bool) (*unix.Stat_t, error) {
	if !wanted || p.fd < 0 {
		return nil, nil
	}
	var st unix.Stat_t
	err := b.Fstatat(p.fd, p.name, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}

// restore gives a directory the metadata that it had.
func (b *rollback) restore(p string, m *record.Meta, xattrs bool) error {
	f, err := b.GetReal(p)
	if err != nil {
		return inroot.UnlessMissing(err)
	}
	var st unix.Stat_t
	if err := b.Fstat(f.FD, &st); err != nil {
		return err
	}
	if int(st.Uid) != m.UID || int(st.Gid) != m.GID {
		if err := b.Fchown(f.FD, m.UID, m.GID); err != nil {
			return err
		}
	}
	if xattrs {
		have, err := b.ListXattrs(f.FD)
		if err == nil {
			err = b.SetXattrs(f.FD, have, m.Xattrs)
		}
		if err != nil {
			return err
		}
	}
	ts := inroot.Timespec(m.ModTime)
	if st.Mtim == ts && st.Mode&0o7777 == m.Mode { // it may be another user's
		delete(b.modes, inroot.IDOf(&st))
		return nil
	}
	if err := b.Utimensat(f.FD, ".", st.Atim, ts); err != nil {
		return err
	}
	delete(b.modes, inroot.IDOf(&st))
	f.St.Mode = f.St.Mode&unix.S_IFMT | m.Mode
	return b.Fchmod(f.FD, m.Mode)
}
