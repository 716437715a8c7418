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

func (a *applier) record(e *snapshot.Entry, c *Change) error {
	if c == nil {
		return nil
	}
	a.touched[e.Path] = true
	if err := a.log.add(c); err != nil {
		return hard{err}
	}
	return nil
}

// save keeps the original of a name that a rename is about to replace: by a
// second link to it, so that the name is never without a file. A folder, which
// no rename replaces, is moved away.
func (a *applier) save(parent *folder, name string, c *Change, st *unix.Stat_t) error {
	if isDir(st) {
		return a.aside(parent, name, c, st)
	}
	if c == nil {
		return nil
	}
	to, err := a.nextOriginal()
	if err != nil {
		return err
	}
	err = unix.Linkat(parent.fd, name, a.originalsFD, to, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) {
		// A file system without hard links, a file with too many, or one that
		// fs.protected_hardlinks guards: for an instant the name is gone.
		err = unix.Renameat(parent.fd, name, a.originalsFD, to)
	}
	if err != nil {
		return fmt.Errorf("keep the original: %w", err)
	}
	c.Original = a.kept
	return nil
}

// aside takes away what is at a name: to the originals, or, where no record is
// kept, for good.
func (a *applier) aside(parent *folder, name string, c *Change, st *unix.Stat_t) error {
	if c == nil {
		if !isDir(st) {
			return unix.Unlinkat(parent.fd, name, 0)
		}
		return removeAll(parent.fd, name)
	}
	to, err := a.nextOriginal()
	if err != nil {
		return err
	}
	// EXDEV: a mount, or on one. Its bytes are not copied; it is left, and told.
	if err := unix.Renameat(parent.fd, name, a.originalsFD, to); err != nil {
		return fmt.Errorf("keep the original: %w", err)
	}
	c.Original = a.kept
	if isDir(st) {
		mtime := st.Mtim
		if t := a.times[string(c.Path)]; t != nil && t.ino == st.Ino {
			mtime = t.time
			delete(a.times, string(c.Path))
		}
		return unix.UtimesNanoAt(a.originalsFD, to, []unix.Timespec{st.Atim, mtime}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

func (a *applier) nextOriginal() (string, error) {
	if a.originalsFD < 0 {
		if err := os.MkdirAll(a.originals, 0o700); err != nil {
			return "", hard{err}
		}
		fd, err := unix.Open(a.originals, openFolder, 0)
		if err != nil {
			return "", hard{err}
		}
		a.originalsFD = fd
	}
	a.kept++
	return strconv.Itoa(a.kept), nil
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
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			err = removeAll(fd, n)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
}
