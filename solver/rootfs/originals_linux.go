package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

var kindNames = map[snapshot.Kind]string{
	snapshot.File: "file", snapshot.Dir: "dir", snapshot.Symlink: "symlink", snapshot.Link: "link",
	snapshot.Char: "device", snapshot.Block: "device", snapshot.Fifo: "fifo", snapshot.Delete: "gone",
}

// change begins the record of an entry; nil where none is kept.
func (a *applier) change(e *snapshot.Entry, st *unix.Stat_t) *Change {
	if a.log == nil {
		return nil
	}
	c := &Change{Path: []byte(e.Path), Kind: kindNames[e.Kind], Created: st == nil}
	if e.Kind != snapshot.Delete && e.Kind != snapshot.Link {
		c.Now = &Meta{Mode: e.Mode, UID: e.UID, GID: e.GID, Size: e.Size, ModTime: e.ModTime.UTC()}
		for k, v := range e.Xattrs {
			if c.Now.Xattrs == nil {
				c.Now.Xattrs = make(map[string][]byte)
			}
			c.Now.Xattrs[k] = []byte(v)
		}
	}
	return c
}

// begin records what an entry is about to do to what stands at its path: before
// it is done, so that after a kill no original is without its record.
func (a *applier) begin(e *snapshot.Entry, st *unix.Stat_t) (*Change, error) {
	c := a.change(e, st)
	if c == nil {
		return nil, nil
	}
	if st != nil {
		if err := a.openOriginals(); err != nil {
			return nil, hard{err}
		}
		a.kept++
		c.Original = a.kept
	}
	return c, a.record(c)
}

func (a *applier) record(c *Change) error {
	if err := a.log.add(c); err != nil {
		return hard{fmt.Errorf("record: %w", err)}
	}
	return nil
}

func (a *applier) openOriginals() error {
	if a.originalsFD >= 0 {
		return nil
	}
	// Others must not come at what the root itself hides, or at old programs
	// with the setuid bit.
	if err := os.MkdirAll(a.originals, 0o700); err != nil {
		return err
	}
	fd, err := unix.Open(a.originals, openFolder, 0)
	if err != nil {
		return err
	}
	a.originalsFD = fd
	return nil
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
	if c == nil {
		return nil
	}
	err := unix.Linkat(parent.fd, name, a.originalsFD, strconv.Itoa(c.Original), 0)
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
			return unix.Unlinkat(parent.fd, name, 0)
		}
		return removeAll(parent.fd, name)
	}
	to := strconv.Itoa(c.Original)
	// EXDEV: a mount, or on one. Its bytes are not copied; it is left, and told.
	// EINVAL: a folder that clayer's own is in.
	if err := unix.Renameat(parent.fd, name, a.originalsFD, to); err != nil {
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
	return unix.UtimesNanoAt(a.originalsFD, to, []unix.Timespec{st.Atim, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// putBack gives a name its original back, if it was moved away, after what was
// to replace it could not be made.
func (a *applier) putBack(parent *folder, name string, c *Change) error {
	if c == nil || c.Original == 0 {
		return nil
	}
	err := unix.Renameat2(a.originalsFD, strconv.Itoa(c.Original), parent.fd, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) {
		return nil // it was linked, not moved, and stands there still
	}
	if err != nil {
		return fmt.Errorf("put the original back: %w", err)
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
		err := unix.Unlinkat(fd, n, 0)
		if errors.Is(err, unix.EISDIR) { // what Linux says, where POSIX has EPERM
			err = removeAll(fd, n)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
}
