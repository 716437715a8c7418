package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// change is the record of an entry at a name; nil for Unpack, which keeps none.
func (a *applier) change(parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) *record.Change {
	if a.to == nil {
		return nil
	}
	p := path.Join(parent.Path, name)
	c := &record.Change{Seq: a.ev.Seq, Path: []byte(p), Kind: record.KindOf(e.Kind), Preserved: a.to.Preserve[p]}
	switch {
	case s == nil: // a folder that is needed, and has no entry
		c.N, c.Now = a.number(), a.dirMeta(e)
	case s.now != nil:
		c.N, c.Now = s.n, s.now
	default:
		c.N = s.n
	}
	if s != nil && s.in != nil {
		switch t := s.in; {
		case t.whole && s == t.top:
			c.Whole = true
		case t.whole:
			c.With = t.top.n
		case s != t.top:
			c.From = []byte(s.at)
		}
	}
	return c
}

// number returns the number of the next change: of one that is staged, or of one that
// shows as the root is changed, by whoever comes first.
func (a *applier) number() int {
	return int(a.n.Add(1))
}

// isKept reports whether nothing is done, since what is there is the user's.
func isPreserved(c *record.Change) bool { return c != nil && c.Preserved }

// begin announces what is about to be done to a path, unless that was foreseen.
func (a *applier) begin(c *record.Change, s *staged) error {
	if c == nil {
		return nil
	}
	if c.Preserved {
		a.res.Preserved = append(a.res.Preserved, string(c.Path))
	} else if err := a.openOriginals(); err != nil {
		return inroot.Hard(err)
	}
	if s != nil && s.line != nil && sameLine(s.line, c) {
		return a.to.Journal.Sync() // nothing, unless something else was added since
	}
	if s != nil {
		a.supersede(c, s)
	}
	return a.announce(c)
}

func (a *applier) announce(c *record.Change) error {
	if err := a.to.Journal.Add(c); err != nil {
		return err
	}
	a.unexpected = true
	return a.to.Journal.Sync()
}

// sameLine reports whether a change is as it was foreseen.
func sameLine(x, y *record.Change) bool {
	return string(x.Path) == string(y.Path) && x.Kind == y.Kind && x.N == y.N && x.Preserved == y.Preserved && x.Whole == y.Whole && x.With == y.With && (x.Was == nil) == (y.Was == nil) &&
		(x.Was == nil || x.Was.Mode == y.Was.Mode && x.Was.UID == y.Was.UID && x.Was.GID == y.Was.GID && x.Was.ModTime.Equal(y.Was.ModTime) &&
			maps.EqualFunc(x.Was.Xattrs, y.Was.Xattrs, bytes.Equal))
}

// openOriginals opens the folder of the originals, making it.
func (a *applier) openOriginals() error {
	if a.originalsFD >= 0 {
		return nil
	}
	fd, err := a.to.Dir.Held().OpenPrivate(record.OriginalsName(a.ev.Seq))
	if err == nil {
		a.originalsFD = fd
	}
	return err
}

// save keeps the original of a name that a rename is about to replace: by a
// second link to it, so that the name is never without a file. A folder, which
// no rename replaces, is moved away.
func (a *applier) save(parent *inroot.Dir, name string, c *record.Change, st *unix.Stat_t) error {
	if inroot.IsDir(st) {
		return a.aside(parent, name, c, st)
	}
	if inroot.IsLink(st) {
		a.Forget(parent, name)
	}
	err := a.Linkat(parent.FD, name, a.originalsFD, strconv.Itoa(c.N))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) {
		// A file system without hard links, a file with too many, or one that
		// fs.protected_hardlinks guards: for an instant the name is gone.
		return a.aside(parent, name, c, st)
	}
	if err != nil {
		return fmt.Errorf("keep the original: %w", err)
	}
	return nil
}

// aside takes away what is at a name: to the originals, or, where no record is
// kept, for good.
func (a *applier) aside(parent *inroot.Dir, name string, c *record.Change, st *unix.Stat_t) error {
	if inroot.IsDir(st) || inroot.IsLink(st) {
		a.Forget(parent, name) // it may have been the way to others
	}
	if c == nil {
		if !inroot.IsDir(st) {
			return a.Unlinkat(parent.FD, name, 0)
		}
		return a.RemoveAllAt(parent.FD, name)
	}
	to := strconv.Itoa(c.N)
	// EXDEV: a mount, or on one. Its bytes are not copied; it is left, and told.
	// EINVAL: a folder that clayer's own is in.
	err := a.Renameat(parent.FD, name, a.originalsFD, to, 0)
	if errors.Is(err, unix.EXDEV) && inroot.IsDir(st) {
		err = a.moveTree(parent, name, c, st)
	}
	if err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("clayer's own folder is in it: %w", unix.EBUSY)
		}
		return fmt.Errorf("keep the original: %w", err)
	}
	if !inroot.IsDir(st) {
		return nil
	}
	mtime := a.TimeOf(st)
	delete(a.times, inroot.IDOf(st))
	return a.Utimensat(a.originalsFD, to, st.Atim, mtime)
}

// putBack gives a name its original back after what was to replace it could not
// be made.
func (a *applier) putBack(parent *inroot.Dir, name string, c *record.Change) error {
	if c == nil {
		return nil
	}
	from := strconv.Itoa(c.N)
	err := a.Renameat(a.originalsFD, from, parent.FD, name, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.ENOENT): // nothing stood there
		return nil
	case errors.Is(err, unix.EEXIST): // it was linked, not moved, and stands there still
		return a.Unlinkat(a.originalsFD, from, 0)
	case err != nil:
		return inroot.Hard(fmt.Errorf("put the original back: %w", err))
	}
	return nil
}

// moveTree moves a folder that can't be renamed, since a file system below an
// overlay has it: file by file. It is announced anew, behind the times of all its
// folders, so that it can be taken back from wherever it was cut off.
func (a *applier) moveTree(parent *inroot.Dir, name string, c *record.Change, st *unix.Stat_t) error {
	var own unix.Stat_t
	if err := a.Fstat(a.originalsFD, &own); err != nil {
		return err
	}
	if own.Dev != st.Dev {
		return unix.EXDEV // it is on another file system
	}
	p := path.Join(parent.Path, name)
	if err := a.noteTree(parent.FD, name, p, uint64(st.Dev)); err != nil {
		return err
	}
	a.supersede(c, &staged{announced: true})
	if err := a.announce(c); err != nil {
		return err
	}
	return a.moveDir(parent.FD, name, a.originalsFD, strconv.Itoa(c.N))
}

// noteTree announces that the times of a folder, and of those below it, will
// change. A mount in it is an error, before anything is moved.
func (a *applier) noteTree(at int, name, p string, dev uint64) error {
	fd, err := a.OpenDirAt(at, name)
	if err != nil {
		return err
	}
	f, err := a.NewDir(fd, p, p)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if uint64(f.St.Dev) != dev {
		return unix.EXDEV
	}
	if err := a.Note(f); err != nil {
		return err
	}
	names, err := a.List(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		st, err := f.Stat(n)
		if err == nil && inroot.IsDir(st) {
			err = a.noteTree(fd, n, path.Join(p, n), dev)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moveFolder makes a folder like another, moves into it what that holds, and
// removes that.
func (a *applier) moveDir(fromAt int, from string, toAt int, to string) error {
	src, err := a.OpenDirAt(fromAt, from)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := a.Fstat(src, &st); err != nil {
		return err
	}
	if err := a.Mkdirat(toAt, to, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	dst, err := a.OpenDirAt(toAt, to)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	names, err := a.List(src)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := a.Renameat(src, n, dst, n, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EEXIST) { // a folder of the same sort, or one that was begun
			err = a.moveDir(src, n, dst, n)
		}
		if err != nil {
			return err
		}
	}
	xattrs, err := a.ListXattrs(src)
	if err != nil {
		return err
	}
	have, err := a.ListXattrs(dst)
	if err == nil {
		err = a.SetXattrs(dst, have, xattrs)
	}
	if err == nil {
		err = a.allow(a.Fchown(dst, int(st.Uid), int(st.Gid)))
	}
	if err == nil {
		err = a.Fchmod(dst, st.Mode&0o7777)
	}
	if err == nil {
		err = a.Utimensat(dst, ".", st.Atim, st.Mtim)
	}
	if err != nil {
		return err
	}
	return a.Unlinkat(fromAt, from, unix.AT_REMOVEDIR)
}
