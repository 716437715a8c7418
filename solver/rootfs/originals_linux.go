package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

var kindNames = map[snapshot.Kind]string{
	snapshot.File: "file", snapshot.Dir: "dir", snapshot.Symlink: "symlink", snapshot.Link: "link",
	snapshot.Char: "device", snapshot.Block: "device", snapshot.Fifo: "fifo", snapshot.Delete: "gone",
}

// change is the record of an entry at a name; nil for Unpack, which keeps none.
func (a *applier) change(parent *folder, name string, e *snapshot.Entry, s *staged) *Change {
	if a.t == nil {
		return nil
	}
	p := path.Join(parent.path, name)
	c := &Change{Seq: a.ev.Seq, Path: []byte(p), Kind: kindNames[e.Kind], Kept: a.t.keep[p]}
	switch {
	case s == nil: // a folder that is needed, and has no entry
		c.N, c.Now = a.number(), metaOf(e)
	case s.now != nil:
		c.N, c.Now = s.n, s.now
	default:
		c.N = s.n
	}
	return c
}

func (a *applier) number() int {
	a.n++
	return a.n
}

func metaOf(e *snapshot.Entry) *Meta {
	m := &Meta{Mode: e.Mode & 0o7777, UID: e.UID, GID: e.GID, Size: e.Size, ModTime: e.ModTime.UTC(), Target: []byte(e.Target)}
	if e.Kind == snapshot.Char || e.Kind == snapshot.Block {
		m.Rdev = unix.Mkdev(e.Major, e.Minor)
	}
	for k, v := range e.Xattrs {
		if !managed(k) {
			continue
		}
		if m.Xattrs == nil {
			m.Xattrs = make(map[string][]byte)
		}
		m.Xattrs[k] = []byte(v)
	}
	return m
}

// isKept reports whether nothing is done, since what is there is the user's.
func (c *Change) isKept() bool { return c != nil && c.Kept }

// begin announces what is about to be done to a path, unless that was foreseen.
func (a *applier) begin(c *Change, s *staged) error {
	if c == nil {
		return nil
	}
	if c.Kept {
		a.res.Kept = append(a.res.Kept, string(c.Path))
	} else if err := a.openOriginals(); err != nil {
		return hard{err}
	}
	if s != nil && s.line != nil {
		if sameLine(s.line, c) {
			return a.t.sync() // nothing, unless something else was added since
		}
		c.Again = true
		a.again(c.N)
	}
	return a.announce(c)
}

func (a *applier) again(n int) {
	if len(a.ev.Again) == 0 || a.ev.Again[len(a.ev.Again)-1] != n {
		a.ev.Again = append(a.ev.Again, n)
	}
}

func (a *applier) announce(c *Change) error {
	if err := a.t.log.add(c); err != nil {
		return hard{err}
	}
	a.t.unsynced = true
	return a.t.sync()
}

// sameLine reports whether a change is as it was foreseen.
func sameLine(x, y *Change) bool {
	return string(x.Path) == string(y.Path) && x.Kind == y.Kind && x.N == y.N && x.Kept == y.Kept && (x.Was == nil) == (y.Was == nil) &&
		(x.Was == nil || x.Was.Mode == y.Was.Mode && x.Was.UID == y.Was.UID && x.Was.GID == y.Was.GID && x.Was.ModTime.Equal(y.Was.ModTime) &&
			maps.EqualFunc(x.Was.Xattrs, y.Was.Xattrs, bytes.Equal))
}

// openOriginals opens the folder of the originals, making it.
func (a *applier) openOriginals() error {
	if a.originalsFD >= 0 {
		return nil
	}
	fd, err := openPrivate(a.t.r.originalsPath(a.ev.Seq))
	if err == nil {
		a.originalsFD = fd
	}
	return err
}

// openPrivate makes and opens a folder that others must not come at: it holds
// what the root itself hides, and old programs with the setuid bit.
func openPrivate(path string) (int, error) {
	if err := mkdirAll(filepath.Dir(path), 0o700); err != nil {
		return -1, err
	}
	if err := mkdirAll(path, 0o700); err != nil {
		return -1, err
	}
	fd, err := unix.Open(path, openFolder, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// save keeps the original of a name that a rename is about to replace: by a
// second link to it, so that the name is never without a file. A folder, which
// no rename replaces, is moved away.
func (a *applier) save(parent *folder, name string, c *Change, st *unix.Stat_t) error {
	if isDir(st) {
		return a.aside(parent, name, c, st)
	}
	if isLink(st) {
		a.forgetBut(parent)
	}
	err := linkat(parent.fd, name, a.originalsFD, strconv.Itoa(c.N))
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
func (a *applier) aside(parent *folder, name string, c *Change, st *unix.Stat_t) error {
	if isDir(st) || isLink(st) {
		a.forgetBut(parent) // it may have been the way to others
	}
	if c == nil {
		if !isDir(st) {
			return unlinkat(parent.fd, name, 0)
		}
		return removeAll(parent.fd, name)
	}
	to := strconv.Itoa(c.N)
	// EXDEV: a mount, or on one. Its bytes are not copied; it is left, and told.
	// EINVAL: a folder that clayer's own is in.
	if err := renameat(parent.fd, name, a.originalsFD, to, 0); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("clayer's own folder is in it: %w", unix.EBUSY)
		}
		return fmt.Errorf("keep the original: %w", err)
	}
	if !isDir(st) {
		return nil
	}
	mtime := st.Mtim
	if t := a.times[idOf(st)]; t != nil {
		mtime = t.time
		delete(a.times, idOf(st))
	}
	return utimensat(a.originalsFD, to, st.Atim, mtime)
}

// putBack gives a name its original back after what was to replace it could not
// be made.
func (a *applier) putBack(parent *folder, name string, c *Change) error {
	if c == nil {
		return nil
	}
	from := strconv.Itoa(c.N)
	err := renameat(a.originalsFD, from, parent.fd, name, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.ENOENT): // nothing stood there
		return nil
	case errors.Is(err, unix.EEXIST): // it was linked, not moved, and stands there still
		return unlinkat(a.originalsFD, from, 0)
	case err != nil:
		return hard{fmt.Errorf("put the original back: %w", err)}
	}
	return nil
}

// removeAll deletes a folder with all in it, following nothing.
func removeAll(at int, name string) error {
	fd, err := unix.Openat(at, name, openFolder|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := list(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := unlinkat(fd, n, 0)
		if errors.Is(err, unix.EISDIR) { // what Linux says, where POSIX has EPERM
			err = removeAll(fd, n)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return unlinkat(at, name, unix.AT_REMOVEDIR)
}
