package unpack

import (
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// epoch is the time of folders that an entry needs and nobody describes:
// 1980-01-01, since zip files, and tools that make them, know none before.
var epoch = time.Unix(315532800, 0)

// parent opens the folder of an entry, making it and those above if missing.
// For a deletion a missing one is nil: there is nothing to delete.
func (a *applier) parent(dir string, deletion bool) (*inroot.Dir, error) {
	f, err := a.Get(dir)
	switch {
	case deletion && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)):
		return nil, nil
	case errors.Is(err, unix.ENOENT):
		f, err = a.makeAll(dir)
	}
	if err != nil {
		return nil, err
	}
	return f, a.NoteTime(f)
}

// makeAll makes the folder at a path and what is missing above it, also where a
// link on the way leads to nothing.
func (a *applier) makeAll(dir string) (*inroot.Dir, error) {
	fd, real, err := a.Walk(a.Root, dir, func(at int, name, p string) error {
		if err := a.guard(p); err != nil {
			return err
		}
		fd, err := a.OpenDirAt(at, ".")
		if err != nil {
			return err
		}
		above, err := a.NewDir(fd, path.Dir(p), path.Dir(p))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := a.NoteTime(above); err != nil {
			return err
		}
		e, err := a.implied(p)
		if err != nil {
			return err
		}
		return a.makeDir(above, name, e, nil, nil)
	})
	if err != nil {
		return nil, err
	}
	return a.Add(fd, dir, real)
}

// fill notes that the stream put something into a folder.
func (a *applier) fill(dir string) {
	for ; !a.filled[dir]; dir = path.Dir(dir) {
		a.filled[dir] = true
	}
}

// folder makes a folder, or gives the one that is there its metadata.
func (a *applier) directory(parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) error {
	st, err := parent.Stat(name)
	if err != nil {
		return err
	}
	if s != nil && s.in != nil && s == s.in.top && s.in.whole && st == nil {
		if err := a.moveNew(parent, name, e, s); err != nil || s.in.moved {
			return err
		}
		if st, err = parent.Stat(name); err != nil {
			return err
		}
	}
	if e.Implied {
		there := inroot.IsDir(st)
		if inroot.IsLink(st) {
			// Through a symlink to a folder it is there too, such as /lib.
			if fd, _, err := a.Resolve(a.Root, e.Path, a.Openat2); err == nil {
				unix.Close(fd)
				there = true
			}
		}
		if there && s != nil && s.announced || !there && st != nil && s != nil && s.implicit {
			return errNotMade // though it was foreseen; who needs it fails, and tells
		}
		if there {
			return nil
		}
	}
	if inroot.IsDir(st) {
		return a.describe(parent, name, e, st, s)
	}
	return a.makeDir(parent, name, e, st, s)
}

func (a *applier) makeDir(parent *inroot.Dir, name string, e *snapshot.Entry, st *unix.Stat_t, s *staged) error {
	c := a.change(parent, name, e, s)
	if err := a.begin(c, s); err != nil || isPreserved(c) {
		return err
	}
	if st != nil {
		if err := a.aside(parent, name, c, st); err != nil {
			return err
		}
	}
	if err := a.Mkdirat(parent.FD, name, 0o700); err != nil {
		return errors.Join(err, a.putBack(parent, name, c))
	}
	fd, err := a.OpenDirAt(parent.FD, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var old map[string][]byte
	if parent.ACL {
		if old, err = a.ListXattrs(fd); err != nil {
			return err
		}
	}
	return a.SetMetadata(fd, e, old, true)
}

// describe gives a folder that is there the entry's metadata.
func (a *applier) describe(parent *inroot.Dir, name string, e *snapshot.Entry, st *unix.Stat_t, s *staged) error {
	fd, err := a.OpenDirAt(parent.FD, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old, err := a.ListXattrs(fd)
	if err != nil {
		return err
	}
	if c := a.change(parent, name, e, s); c != nil {
		a.was(c, st, old)
		if err := a.begin(c, s); err != nil || c.Preserved {
			return err
		}
	}
	if len(old) > 0 || len(e.Xattrs) > 0 {
		a.Forget(parent, name) // what is made in it may inherit another ACL now
	}
	return a.SetMetadata(fd, e, old, false)
}

// was completes the record of a folder that is described.
func (a *applier) was(c *record.Change, st *unix.Stat_t, xattrs map[string][]byte) {
	mtime := a.TimeOf(st) // entries below may have been made before: by then it had changed
	c.Was = record.MetaOfStat(st)
	c.Was.ModTime, c.Was.Xattrs = time.Unix(mtime.Unix()).UTC(), xattrs
	if !a.privileged { // it stays what it is
		c.Now.UID, c.Now.GID = c.Was.UID, c.Was.GID
	}
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
	names, err := a.List(f.FD)
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
		if a.to != nil { // all are announced first, for one sync
			s.n = a.number()
			s.line = a.change(f, name, s.e, &s)
			s.announced, a.unexpected = true, true
			if err := a.to.Journal.Add(s.line); err != nil {
				return err
			}
		}
		gone = append(gone, s)
	}
	if a.to != nil && len(gone) > 0 {
		if err := a.to.Journal.Sync(); err != nil {
			return err
		}
	}
	var left error
	for i := range gone {
		s := &gone[i]
		name := path.Base(s.e.Path)
		f, err := a.Get(p)
		if err == nil {
			if err = a.guardBelow(f, name, s.e.Path); err == nil {
				if a.to == nil {
					s = nil
				}
				err = a.remove(f, name, gone[i].e, s)
			}
		}
		if err != nil && inroot.IsHard(err) {
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
