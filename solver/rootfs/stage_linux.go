package rootfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// maxChunk is how many entries are made before the root is changed by them:
// one sync is for all of them, and they are held in memory, without content.
const maxChunk = 16 << 10

// staged is an entry that was made, but not where it belongs.
type staged struct {
	e    *snapshot.Entry
	n    int     // of its change; the name in the stage folder of what is no folder
	now  *Meta   // nil for what only deletes
	made bool    // false: this user may not make it
	err  error   // why it could not be made
	line *Change // its announcement; nil: it could not be foreseen
}

// errNotMade says that an entry was left out for want of privilege.
var errNotMade = errors.New("not made")

// stage makes an entry in the stage folder: all that takes time, or space, or
// can fail for what is in the stream, before the root is touched.
func (a *applier) stage(ctx context.Context, e *snapshot.Entry) error {
	if err := a.guard(e.Path); err != nil {
		return err
	}
	s := staged{e: e}
	if e.Kind != snapshot.Opaque {
		s.n = a.number()
	}
	switch e.Kind {
	case snapshot.Opaque, snapshot.Delete:
	case snapshot.Dir:
		s.now = metaOf(e)
	default:
		if err := a.room(e); err != nil {
			return err
		}
		denied := a.res.Unprivileged
		name := strconv.Itoa(s.n)
		s.made, s.err = a.make(ctx, a.stageDir, name, e)
		if s.err != nil && (isHard(s.err) || errors.Is(s.err, unix.EROFS)) {
			return hard{s.err} // of clayer's own folder, not of the entry
		}
		s.now = metaOf(e)
		if s.made && s.err == nil {
			if err := a.actual(&s, name, denied); err != nil {
				return err
			}
		}
	}
	if s.err == nil && (e.Kind == snapshot.File || e.Kind == snapshot.Link) {
		a.inChunk[e.Path] = len(a.chunk)
	}
	a.chunk = append(a.chunk, s)
	return nil
}

// actual corrects what is recorded of a file by what it has become: a link is
// its target, and without privilege not all could be set.
func (a *applier) actual(s *staged, name string, denied int) error {
	switch s.e.Kind {
	case snapshot.File:
		sum := a.sum
		s.now.Sum = &sum
	case snapshot.Link:
		if i, ok := a.inChunk[s.e.Target]; ok {
			s.now = a.chunk[i].now
			return nil
		}
	}
	if a.privileged && s.e.Kind != snapshot.Link {
		return nil
	}
	var st unix.Stat_t
	if err := fstatat(a.stageDir.fd, name, &st); err != nil {
		return err
	}
	s.now.Mode, s.now.UID, s.now.GID = st.Mode&0o7777, int(st.Uid), int(st.Gid)
	if s.e.Kind == snapshot.Link {
		s.now.Size, s.now.ModTime, s.now.Target = st.Size, time.Unix(st.Mtim.Unix()).UTC(), nil
	}
	if a.res.Unprivileged > denied {
		s.now.Xattrs = nil
	}
	return nil
}

// room refuses a large file that there is no room for, before a byte of it is
// written: a terabyte of zeros is a megabyte in a snapshot.
func (a *applier) room(e *snapshot.Entry) error {
	const large = 64 << 20
	need := e.Size
	if e.Data != nil {
		need = 0
		for _, x := range e.Data {
			need += x.Length
		}
	}
	if need < large {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(a.stageDir.fd, &fs); err != nil {
		return nil // not worth failing for: the write tells it too
	}
	if free := int64(fs.Bavail) * fs.Bsize; need > free {
		return fmt.Errorf("it is %d bytes large, and %d are free: %w", need, free, unix.ENOSPC)
	}
	return nil
}

// flush changes the root by the entries that are staged: what each does is
// announced, all is synced at once, and then done.
func (a *applier) flush(ctx context.Context) error {
	if len(a.chunk) == 0 {
		return nil
	}
	for i := range a.chunk {
		if err := a.foresee(&a.chunk[i]); err != nil {
			return err
		}
	}
	if err := a.t.sync(); err != nil {
		return err
	}
	for i := range a.chunk {
		s := &a.chunk[i]
		if err := context.Cause(ctx); err != nil {
			return err
		}
		err := s.err
		if err == nil {
			err = a.entry(ctx, s.e, s)
		}
		if err != nil && s.n > 0 {
			a.ev.Not = append(a.ev.Not, s.n)
		}
		if errors.Is(err, errNotMade) {
			continue
		}
		if err := a.outcome(s.e, err); err != nil {
			return err
		}
	}
	a.chunk = a.chunk[:0]
	clear(a.inChunk)
	clear(a.will)
	return nil
}

// foresee announces what an entry will do, as far as that can be told from the
// root as it is. What turns out otherwise is announced, and synced, anew when it
// is done.
func (a *applier) foresee(s *staged) error {
	e := s.e
	if s.err != nil || e.Kind == snapshot.Opaque {
		return nil
	}
	dir, name := path.Split(e.Path)
	dir = path.Clean(dir)
	real, ok := a.will[dir]
	var st *unix.Stat_t
	parent := &folder{path: real}
	if !ok {
		f, err := a.get(dir)
		if err != nil {
			return nil // made by an entry before this, or by this one
		}
		if err := a.keepTime(f); err != nil {
			return err
		}
		parent = f
		if e.Kind == snapshot.Delete || e.Kind == snapshot.Dir {
			if st, err = stat(f, name); err != nil {
				return nil
			}
		}
	}
	if e.Kind == snapshot.Delete && st == nil || e.Kind == snapshot.Dir && e.Implied && st != nil {
		return nil
	}
	c := a.change(parent, name, e, s)
	if isDir(st) && e.Kind == snapshot.Dir {
		fd, err := unix.Openat(parent.fd, name, openFolder|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil
		}
		xattrs, err := listXattrs(fd)
		unix.Close(fd)
		if err != nil {
			return nil
		}
		a.was(c, st, xattrs)
	} else if e.Kind == snapshot.Dir {
		a.will[e.Path] = string(c.Path)
	}
	s.line = c
	a.t.unsynced = true
	if err := a.t.log.add(c); err != nil {
		return hard{err}
	}
	return nil
}
