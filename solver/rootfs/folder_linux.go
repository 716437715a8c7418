package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// folderTime is what a folder gets when all is in it.
type folderTime struct {
	path string
	time unix.Timespec
	mode int // -1: it has its mode
}

// epoch is the time of folders that an entry needs and nobody describes:
// 1980-01-01, since zip files, and tools that make them, know none before.
var epoch = time.Unix(315532800, 0)

// parent opens the folder of an entry, making it and those above if missing.
// For a deletion a missing one is nil: there is nothing to delete.
func (a *applier) parent(dir string, deletion bool) (*folder, error) {
	f, err := a.get(dir)
	switch {
	case deletion && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)):
		return nil, nil
	case errors.Is(err, unix.ENOENT):
		f, err = a.makeAll(dir)
	}
	if err != nil {
		return nil, err
	}
	return f, a.keepTime(f)
}

// keepTime notes the time that a folder has, before something is put into it.
func (a *applier) keepTime(f *folder) error {
	id := idOf(&f.st)
	if a.times[id] == nil {
		a.times[id] = &folderTime{f.path, f.st.Mtim, -1}
	}
	if a.t == nil {
		return nil
	}
	return a.t.note(f)
}

// makeAll makes the folder at a path and what is missing above it, also where a
// link on the way leads to nothing.
func (a *applier) makeAll(dir string) (*folder, error) {
	fd, real, err := walkInRoot(a.root, dir, func(at int, name, p string) error {
		if err := a.guard(p); err != nil {
			return err
		}
		fd, err := unix.Openat(at, ".", openFolder, 0)
		if err != nil {
			return err
		}
		above, err := newFolder(fd, path.Dir(p), path.Dir(p))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := a.keepTime(above); err != nil {
			return err
		}
		return a.makeFolder(above, name, &snapshot.Entry{Path: p, Kind: snapshot.Dir, Mode: 0o755, ModTime: epoch}, nil, nil)
	})
	if err != nil {
		return nil, err
	}
	return a.keep(fd, dir, real)
}

// fill notes that the stream put something into a folder.
func (a *applier) fill(dir string) {
	for ; !a.filled[dir]; dir = path.Dir(dir) {
		a.filled[dir] = true
	}
}

// folder makes a folder, or gives the one that is there its metadata.
func (a *applier) folder(parent *folder, name string, e *snapshot.Entry, s *staged) error {
	st, err := stat(parent, name)
	if err != nil {
		return err
	}
	if e.Implied {
		there := isDir(st)
		if !there {
			// Through a symlink to a folder it is there too, such as /lib.
			if fd, _, err := openInRoot(a.root, e.Path, a.openat2); err == nil {
				unix.Close(fd)
				there = true
			}
		}
		if there && s != nil && s.line != nil {
			return errNotMade // though it was foreseen
		}
		if there {
			return nil
		}
	}
	if isDir(st) {
		return a.describe(parent, name, e, st, s)
	}
	return a.makeFolder(parent, name, e, st, s)
}

func (a *applier) makeFolder(parent *folder, name string, e *snapshot.Entry, st *unix.Stat_t, s *staged) error {
	c := a.change(parent, name, e, s)
	if err := a.begin(c, s); err != nil || c.isKept() {
		return err
	}
	if st != nil {
		if err := a.aside(parent, name, c, st); err != nil {
			return err
		}
	}
	if err := mkdirat(parent.fd, name, 0o700); err != nil {
		return errors.Join(err, a.putBack(parent, name, c))
	}
	fd, err := unix.Openat(parent.fd, name, openFolder|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var old map[string][]byte
	if parent.acl {
		if old, err = listXattrs(fd); err != nil {
			return err
		}
	}
	return a.dress(fd, e, old, true)
}

// describe gives a folder that is there the entry's metadata.
func (a *applier) describe(parent *folder, name string, e *snapshot.Entry, st *unix.Stat_t, s *staged) error {
	fd, err := unix.Openat(parent.fd, name, openFolder|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old, err := listXattrs(fd)
	if err != nil {
		return err
	}
	if c := a.change(parent, name, e, s); c != nil {
		a.was(c, st, old)
		if err := a.begin(c, s); err != nil || c.Kept {
			return err
		}
	}
	if len(old) > 0 || len(e.Xattrs) > 0 {
		a.forgetBut(parent) // what is made in it may inherit another ACL now
	}
	return a.dress(fd, e, old, false)
}

// was completes the record of a folder that is described.
func (a *applier) was(c *Change, st *unix.Stat_t, xattrs map[string][]byte) {
	mtime := st.Mtim
	if t := a.times[idOf(st)]; t != nil {
		mtime = t.time // entries below were made before: by then it had changed
	}
	c.Was = &Meta{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), ModTime: time.Unix(mtime.Unix()).UTC(), Xattrs: xattrs}
	if !a.privileged { // it stays what it is
		c.Now.UID, c.Now.GID = c.Was.UID, c.Was.GID
	}
}

// dress gives an open folder its metadata: the time when all is in it, and then
// too the mode, where it would keep this user from putting something in.
func (a *applier) dress(fd int, e *snapshot.Entry, old map[string][]byte, created bool) error {
	mode, err := a.attributes(fd, e, old)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	t := &folderTime{e.Path, timespec(e.ModTime), -1}
	if st.Mode&0o7777 != mode {
		t.mode = int(mode)
	}
	a.times[idOf(&st)] = t
	if created && a.t != nil {
		a.t.seen[idOf(&st)] = true // taken back, it is gone
	}
	return nil
}

// opaque deletes all that a folder held. It stands before all that the stream
// itself puts there.
func (a *applier) opaque(p string) error {
	if a.filled[p] {
		return unsafe(p, "opaque, behind an entry below it")
	}
	f, err := a.parent(p, true)
	if err != nil || f == nil {
		return err
	}
	names, err := list(f.fd)
	if err != nil {
		return err
	}
	var gone []staged
	for _, name := range names {
		below := path.Join(p, name)
		if a.guard(below) != nil {
			continue // it held that before clayer came as little as after
		}
		s := staged{e: &snapshot.Entry{Path: below, Kind: snapshot.Delete}}
		if a.t != nil { // all are announced first, for one sync
			s.n = a.number()
			s.line = a.change(f, name, s.e, &s)
			if err := a.t.log.add(s.line); err != nil {
				return hard{err}
			}
			a.t.unsynced = true
		}
		gone = append(gone, s)
	}
	if a.t != nil && len(gone) > 0 {
		if err := a.t.sync(); err != nil {
			return err
		}
	}
	var left error
	for i := range gone {
		s := &gone[i]
		name := path.Base(s.e.Path)
		f, err := a.get(p)
		if err == nil {
			if err = a.guardBelow(f, name, s.e.Path); err == nil {
				if a.t == nil {
					s = nil
				}
				err = a.remove(f, name, gone[i].e, s)
			}
		}
		if err != nil && isHard(err) {
			return err
		}
		if err != nil {
			a.ev.Not = append(a.ev.Not, gone[i].n)
			if left == nil {
				left = fmt.Errorf("%q: %w", name, err)
			}
		}
	}
	return left
}

func list(fd int) ([]string, error) {
	dup, err := unix.Openat(fd, ".", openFolder, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

// setTimes gives the folders their times, and the modes that had to wait: a
// folder before those above, which may then not be entered any more.
func (a *applier) setTimes() error {
	ids := make([]fileID, 0, len(a.times))
	for id := range a.times {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(x, y fileID) int { return strings.Compare(a.times[y].path, a.times[x].path) })
	var errs []error
	for _, id := range ids {
		t := a.times[id]
		err := a.setTime(id, t)
		if err != nil && (isHard(err) || a.t != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES)) {
			errs = append(errs, hard{fmt.Errorf("time of %q: %w", t.path, err)})
		}
	}
	return errors.Join(errs...)
}

func (a *applier) setTime(id fileID, t *folderTime) error {
	fd, _, err := openInRoot(a.root, t.path, a.openat2)
	if err != nil {
		return nil // deleted, or replaced, by a later entry
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || idOf(&st) != id {
		return err
	}
	if st.Mtim != t.time {
		// By the folder itself: /proc need not be mounted here. And before the
		// mode, with which "." may not be entered any more.
		err = utimensat(fd, ".", st.Atim, t.time)
	}
	if t.mode >= 0 {
		err = errors.Join(err, fchmod(fd, uint32(t.mode)))
	}
	return err
}

func timespec(t time.Time) unix.Timespec {
	// Not UnixNano, which knows no time before 1677 or after 2262.
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
