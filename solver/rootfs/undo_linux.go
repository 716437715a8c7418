package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/solver/internal/metadata"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
	"github.com/clayer/clayer/solver/rootfs/drift"
)

// Undo undoes all applies but the first stay of the log, the last one first,
// in the transaction that the first Undo or Apply begins. What the user changed
// since stays, and is reported; with force it is taken too. What an earlier undo
// left is tried again: what could not be undone then always, and what the user
// had changed when nothing is to be preserved. After an error of the transaction nothing
// but Rollback is possible.
func (l *Lock) Undo(ctx context.Context, stay int, force bool) (*Undone, error) {
	res := &Undone{}
	if l.tx == nil && len(l.state.Log) <= stay && len(l.state.Preserved) == 0 && l.state.Profile == nil {
		return res, nil
	}
	t, err := l.begin()
	if err != nil {
		return nil, err
	}
	if err := t.liftProfile(ctx, force, res); err != nil {
		return res, err
	}
	left := t.next.Preserved[:len(t.next.Preserved):len(t.next.Preserved)]
	t.next.Preserved = nil
	for len(t.next.Log) > stay {
		ev := t.next.Log[len(t.next.Log)-1]
		t.next.Log = t.next.Log[:len(t.next.Log)-1]
		if err := t.undo(ctx, ev, force, res); err != nil {
			return res, fmt.Errorf("undo %s: %w", ev.Key.Short(), err)
		}
		res.Steps = append(res.Steps, ev.Key)
	}
	order.Stable(left, func(x, y record.Event) int { return y.Seq - x.Seq })
	for _, ev := range left {
		if stay > 0 && !ev.Retry {
			t.next.Preserved = append(t.next.Preserved, ev)
			continue
		}
		if err := t.undo(ctx, ev, force, res); err != nil {
			return res, fmt.Errorf("undo what was left: %w", err)
		}
	}
	return res, nil
}

// undoing is the undo of one apply.
type undoing struct {
	*metadata.Tree
	t           *transaction
	was         record.Event // the apply
	force       bool
	res         *Undone
	trashFD     int
	originalsFD int          // of the originals; -1 where there are none
	stageFD     int          // of databases that are written again; -1 before the first
	originals   map[int]bool // the numbers of the changes with an original
	buf         []byte
	chunk       []backward
	paths       map[string]bool // of the chunk
	left        []record.Change // that stay, the last first
	retry       bool            // not all of them because of the user
}

// backward is a change that is about to be undone.
type backward struct {
	record.Change
	in    bool         // there is an original, or what takes its place
	fd    int          // of the directory that it is in
	name  string       // in that
	comes *record.Meta // what it is, if it is a directory that this user may not move as it is
}

func (t *transaction) undo(ctx context.Context, ev record.Event, force bool, res *Undone) (err error) {
	t.undoes()
	tree, err := metadata.Open(t.r.sys, t.r.dir, t.journal)
	if err != nil {
		return err
	}
	u := &undoing{Tree: tree, t: t, was: ev, force: force, res: res, trashFD: -1, originalsFD: -1, stageFD: -1, buf: make([]byte, 128<<10), paths: make(map[string]bool)}
	defer func() {
		err = errors.Join(err, u.SetTimes())
		for _, fd := range []int{u.trashFD, u.originalsFD, u.stageFD} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
		u.Close()
	}()
	if u.originals, err = t.r.state.Originals(ev.Seq); err != nil {
		return err
	}
	if len(u.originals) > 0 {
		if u.originalsFD, err = t.r.state.Held().OpenFD(record.OriginalsName(ev.Seq)); err != nil {
			return err
		}
	}
	for c, err := range t.r.state.ChangesBackward(ev) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = u.change(ctx, &c)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", c.Path, err)
		}
	}
	if err := u.flush(); err != nil {
		return err
	}
	return u.recordLeft(ev)
}

// recordLeft records the changes that were not undone.
func (u *undoing) recordLeft(ev record.Event) error {
	if len(u.left) == 0 {
		return nil
	}
	t := u.t
	left := record.Event{Seq: ev.Seq, Key: ev.Key, Tx: t.id, From: t.journal.End(), Done: ev.Done, Adopted: ev.Adopted, Retry: u.retry, Space: ev.Space}
	for _, c := range slices.Backward(u.left) {
		c.Left, c.Again = true, 0
		if err := t.journal.Add(&c); err != nil {
			return err
		}
	}
	left.To = t.journal.End()
	t.next.Preserved = append(t.next.Preserved, left)
	return nil
}

// preserve leaves a path as it is. A change of which nothing is needed any more is
// forgotten.
func (u *undoing) preserve(c *record.Change, why string) {
	u.res.preserve(string(c.Path), why)
	u.left = append(u.left, *c)
	if why != NotEmpty { // the directory itself is not changed
		u.t.preserve[string(c.Path)] = true
	}
}

// change looks at what undoing a change takes, and announces it.
func (u *undoing) change(ctx context.Context, c *record.Change) error {
	p := string(c.Path)
	if u.paths[p] || len(u.chunk) >= unpack.MaxChunk {
		// What stands there is not what will stand there.
		if err := u.flush(); err != nil {
			return err
		}
	}
	if c.Preserved {
		if !u.force {
			u.t.preserve[p] = true
			u.res.preserve(p, "changed since; preserved before")
		}
		return nil
	}
	if c.Lost {
		u.res.Lost = append(u.res.Lost, p)
		return nil
	}
	u.noteRecords(c)
	in := c.MayHaveOriginal() && u.originals[c.N]
	f, err := u.GetReal(path.Dir(p))
	if err != nil {
		if inroot.UnlessMissing(err) != nil {
			return err
		}
		if in {
			u.preserve(c, "its directory was moved or deleted")
		}
		return nil
	}
	if err := u.NoteTime(f); err != nil {
		return err
	}
	st, err := f.Stat(path.Base(p))
	if err != nil {
		return err
	}
	if c.Was != nil {
		return u.dir(f, c, st)
	}
	if c.Records != nil && st != nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		what, err := drift.Of(ctx, f, path.Base(p), st, c, u.was.Done, u.buf)
		if err != nil {
			return err
		}
		with, err := u.staying(c)
		if err != nil {
			return err
		}
		if len(what)+len(with) > 0 {
			return u.undoRecords(f, c, in, with)
		}
	}
	switch {
	case st == nil && !in:
		return nil // the user deleted what was new
	case u.force || st == nil && c.Kind == record.KindGone:
	case st == nil:
		u.preserve(c, "deleted")
		return nil
	case c.Kind == record.KindGone:
		u.preserve(c, "created again")
		return nil
	case c.Kind == record.KindDir && inroot.IsDir(st): // whether it is empty is seen when those below are undone
	default:
		what, err := drift.Of(ctx, f, path.Base(p), st, c, u.was.Done, u.buf)
		if err != nil {
			return err
		}
		if len(what) > 0 {
			u.preserve(c, "changed: "+strings.Join(what, ", "))
			return nil
		}
	}
	if inroot.IsDir(st) && os.Geteuid() != 0 {
		// To move a directory one must be able to write it: see move.
		if d, err := u.Get(p); err == nil {
			if err := u.Note(d); err != nil {
				return err
			}
		}
	}
	b := backward{Change: *c, in: in}
	line := &record.Change{Kind: record.KindUndo, Path: c.Path, Out: path.Join("trash", u.trashName(c.N)), Records: c.Records}
	if in {
		line.In, b.fd, b.name = record.OriginalName(u.was.Seq, c.N), u.originalsFD, strconv.Itoa(c.N)
		if b.comes, err = u.fixed(c.N); err != nil {
			return err
		}
		line.Was = b.comes
		if c.Records != nil {
			var orig unix.Stat_t
			if err := u.Fstatat(b.fd, b.name, &orig); err != nil {
				return err
			}
			line.Now = record.MetaOfStat(&orig)
			line.Now.Size = orig.Size
		}
	}
	return u.plan(b, line)
}

// fixed returns the metadata of an original that is a directory of this user's and may
// not be moved without the right to write it; nil for any other.
func (u *undoing) fixed(n int) (*record.Meta, error) {
	if os.Geteuid() == 0 {
		return nil, nil
	}
	var st unix.Stat_t
	if err := u.Fstatat(u.originalsFD, strconv.Itoa(n), &st); err != nil {
		return nil, err
	}
	if !inroot.IsFixed(&st) {
		return nil, nil
	}
	return record.MetaOfStat(&st), nil
}

func (u *undoing) plan(b backward, line *record.Change) error {
	u.chunk = append(u.chunk, b)
	u.paths[string(b.Path)] = true
	return u.t.journal.Add(line)
}

// directory looks at a directory that was described.
func (u *undoing) dir(f *inroot.Dir, c *record.Change, st *unix.Stat_t) error {
	if !inroot.IsDir(st) {
		u.preserve(c, "no directory any more")
		return nil
	}
	fd, err := u.OpenIn(f.FD, path.Base(string(c.Path)), string(c.Path))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	have, err := u.ListXattrs(fd)
	if err != nil {
		return err
	}
	st.Mode = st.Mode&unix.S_IFMT | u.ModeOf(st)
	if what := drift.OfDir(st, c.Now, have); len(what) > 0 && !u.force {
		u.preserve(c, "changed: "+strings.Join(what, ", "))
		return nil
	}
	now := record.MetaOfStat(st)
	now.Xattrs = have
	return u.plan(backward{Change: *c}, &record.Change{Kind: record.KindDir, Path: c.Path, Was: now})
}

// flush does what was announced.
func (u *undoing) flush() error {
	if len(u.chunk) == 0 {
		return nil
	}
	if err := u.t.journal.Sync(); err != nil {
		return err
	}
	for i := range u.chunk {
		b := &u.chunk[i]
		before := len(u.res.Preserved)
		err := u.do(b)
		switch {
		case err == nil && len(u.res.Preserved) == before:
			u.res.Files++
		case err != nil && inroot.IsHard(err):
			return fmt.Errorf("%q: %w", b.Path, err)
		case err != nil:
			u.res.Problems = append(u.res.Problems, unpack.Problem{Path: string(b.Path), Err: err})
			u.left = append(u.left, b.Change)
			u.retry = true
		}
	}
	u.chunk = u.chunk[:0]
	clear(u.paths)
	return nil
}

func (u *undoing) do(b *backward) error {
	p := string(b.Path)
	name := path.Base(p)
	f, err := u.GetReal(path.Dir(p))
	if err != nil {
		return err
	}
	if err := errors.Join(u.NoteTime(f), u.Unlock(f)); err != nil {
		return err
	}
	st, err := f.Stat(name)
	if err != nil {
		return err
	}
	if b.Was != nil {
		return u.undescribe(f, name, b)
	}
	if inroot.IsDir(st) && !u.force {
		empty, err := u.isEmpty(f, name)
		if err != nil {
			return err
		}
		if !empty {
			u.preserve(&b.Change, NotEmpty)
			return nil
		}
	}
	if u.trashFD < 0 {
		err := u.t.spending(func() (err error) {
			u.trashFD, err = u.t.r.state.Held().OpenPrivate("trash")
			return err
		})
		if err != nil {
			return inroot.Hard(err)
		}
	}
	linked := false
	if st != nil {
		if inroot.IsDir(st) || inroot.IsLink(st) {
			u.Forget(f, name)
		}
		if linked, err = u.move(f, name, b, st); err != nil {
			return err
		}
	}
	if !b.in {
		return nil
	}
	flags := uint(unix.RENAME_NOREPLACE)
	if linked {
		flags = 0
	}
	err = u.Free(b.fd, b.name)
	if err == nil {
		err = u.t.spending(func() error { return u.Renameat(b.fd, b.name, f.FD, name, flags) })
	}
	if err == nil && b.comes != nil {
		return u.Fchmodat(f.FD, name, b.comes.Mode)
	}
	if err != nil && b.comes != nil {
		err = errors.Join(err, u.Fchmodat(b.fd, b.name, b.comes.Mode))
	}
	if err != nil && st != nil {
		err = errors.Join(err, u.Renameat(u.trashFD, u.trashName(b.N), f.FD, name, 0))
	}
	return err
}

// trashName is where in the trash goes what a change made.
func (u *undoing) trashName(n int) string { return fmt.Sprintf("%d-%d", u.was.Seq, n) }

// move takes what stands at a name away. Where something else takes its place it
// only gets a second name, so that there is no instant without the first.
func (u *undoing) move(f *inroot.Dir, name string, b *backward, st *unix.Stat_t) (linked bool, err error) {
	to := u.trashName(b.N)
	if b.in && !inroot.IsDir(st) {
		var orig unix.Stat_t
		err := u.Fstatat(b.fd, b.name, &orig)
		if err != nil {
			return false, err
		}
		if !inroot.IsDir(&orig) {
			err := u.t.spending(func() error { return u.Linkat(f.FD, name, u.trashFD, to) })
			if !inroot.NoSecondLink(err) {
				return err == nil, err
			}
		}
	}
	if err := u.Free(f.FD, name); err != nil {
		return false, err
	}
	err = u.t.spending(func() error { return u.Renameat(f.FD, name, u.trashFD, to, 0) })
	if errors.Is(err, unix.EXDEV) && !b.in {
		err = u.moveBeside(f, name, b.N)
	}
	return false, err
}

func (u *undoing) isEmpty(f *inroot.Dir, name string) (bool, error) {
	fd, err := u.OpenIn(f.FD, name, path.Join(f.Path, name))
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	names, err := u.List(fd)
	// What was taken away on another mount is in it still, and goes with it.
	mine := fmt.Sprintf("%s%d-", record.TrashPrefix, u.t.id)
	return !slices.ContainsFunc(names, func(n string) bool { return !strings.HasPrefix(n, mine) }), err
}

// undescribe gives a directory the metadata that it had. Its time comes back if
// nothing was put into it, or taken out, since.
func (u *undoing) undescribe(f *inroot.Dir, name string, b *backward) error {
	fd, err := u.OpenIn(f.FD, name, path.Join(f.Path, name))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := u.Fstat(fd, &st); err != nil {
		return err
	}
	mtime := u.TimeOf(&st)
	if mtime == inroot.Timespec(b.Now.ModTime) {
		mtime = inroot.Timespec(b.Was.ModTime)
	}
	e := &snapshot.Entry{Path: string(b.Path), Kind: snapshot.Dir, Mode: b.Was.Mode, UID: b.Was.UID, GID: b.Was.GID, ModTime: time.Unix(mtime.Unix())}
	for k, v := range b.Was.Xattrs {
		if e.Xattrs == nil {
			e.Xattrs = make(map[string]string)
		}
		e.Xattrs[k] = string(v)
	}
	u.Forget(f, name) // what is made in it may inherit another ACL now
	return u.t.spending(func() error {
		have, err := u.ListXattrs(fd)
		if err != nil {
			return err
		}
		return u.SetMetadata(fd, e, have, false)
	})
}
