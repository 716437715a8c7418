package unpack

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// MaxChunk is how many entries are made before the root is changed by them:
// one sync is for all of them, and they are held in memory, without content.
const MaxChunk = 16 << 10

// staged is an entry that was made, but not where it belongs.
type staged struct {
	e    *snapshot.Entry
	n    int            // of its change
	at   string         // where it is made in the stage folder: its number, or a path in a new folder
	in   *newDir        // the new folder that it is made in, or is; nil: none
	now  *record.Meta   // nil for what only deletes
	made bool           // false: this user may not make it
	err  error          // why it could not be made
	line *record.Change // its announcement; nil: it is not foreseen

	announced bool // there is a line, be it an old one
	round     int  // of the new folder, when its line was announced
	implicit  bool // no entry asks for it by itself: a folder that others need
}

// errNotMade says that an entry was left out for want of privilege.
var errNotMade = errors.New("not made")

// target returns the file of the chunk that a link is to; nil if it is in none.
func (a *applier) target(e *snapshot.Entry) *staged {
	if s := a.inChunk[e.Target]; s != nil && s.err == nil {
		return s
	}
	return nil
}

// actual corrects what is recorded of a file by what it has become: a link is
// its target, and without privilege not all could be set.
func (a *applier) actual(s *staged) error {
	switch s.e.Kind {
	case snapshot.File:
		sum := a.sum
		s.now.Sum = &sum
	case snapshot.Link:
		if to := a.target(s.e); to != nil {
			now := *to.now
			if to.e.Kind != snapshot.Link {
				now.Type = record.KindOf(to.e.Kind)
			}
			s.now = &now
			return nil
		}
	}
	if a.privileged && s.e.Kind != snapshot.Link {
		return nil
	}
	var st unix.Stat_t
	if err := a.Fstatat(a.stageDir.FD, s.at, &st); err != nil {
		return err
	}
	s.now.Mode, s.now.UID, s.now.GID = st.Mode&0o7777, int(st.Uid), int(st.Gid)
	if s.e.Kind == snapshot.Link {
		s.now.Type = record.TypeOf(&st)
		s.now.Size, s.now.ModTime, s.now.Target = st.Size, time.Unix(st.Mtim.Unix()).UTC(), nil
	}
	if a.otherXattrs {
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
	if err := unix.Fstatfs(a.stageDir.FD, &fs); err != nil {
		return nil // not worth failing for: the write tells it too
	}
	if free := int64(fs.Bavail) * fs.Bsize; need > free {
		return fmt.Errorf("it is %d bytes large, and %d are free: %w", need, free, unix.ENOSPC)
	}
	return nil
}

// flush changes the root by the entries that are staged. As many as can be
// foreseen are announced, all at once and in the order in which they are done
// then; an entry that needs more than that is announced and synced by itself.
//
// Where something was not as foreseen, what follows is announced anew, since
// taking back goes by the order of the lines: little at first, lest a stream that
// was made for it be announced over and over.
func (a *applier) flush(ctx context.Context, chunk []*staged) error {
	if a.to.Verified != nil {
		select {
		case <-a.to.Verified:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for i, most := 0, MaxChunk; i < len(chunk); most = min(2*most, MaxChunk) {
		clear(a.will)
		end := i
		for end < len(chunk) && end-i < most {
			foreseen, err := a.precheck(chunk[end])
			if err != nil {
				return err
			}
			if !foreseen {
				break
			}
			end++
		}
		if err := a.to.Journal.Sync(); err != nil {
			return err
		}
		end = max(end, i+1)
		for a.unexpected = false; i < end && !a.unexpected; i++ {
			if err := a.finish(ctx, chunk[i]); err != nil {
				return err
			}
		}
		if a.unexpected && i < end {
			most = 1
		}
	}
	return nil
}

// finish puts what was staged where it belongs.
func (a *applier) finish(ctx context.Context, s *staged) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	err := s.err
	switch t := s.in; {
	case err != nil:
	case t != nil && t.moved && s != t.top:
		if !s.made && s.now != nil && s.e.Kind != snapshot.Dir {
			err = errNotMade
		}
	default:
		err = a.entry(ctx, s.e, s)
	}
	if err != nil && s.n > 0 {
		a.ev.Not = append(a.ev.Not, s.n)
	}
	if errors.Is(err, errNotMade) || err == nil && s.implicit {
		return nil
	}
	return a.outcome(s.e, err)
}

// foresee announces what an entry will do, if that can be told from the root as
// it is, and what the entries before it do.
func (a *applier) precheck(s *staged) (bool, error) {
	if s.in != nil && s.in.moved && s.line != nil && s.round == s.in.round {
		return true, nil // it is there, and its line is behind that of the folder
	}
	s.line = nil
	e := s.e
	if s.err != nil {
		return true, nil
	}
	if s.in != nil {
		if s == s.in.top {
			s.in.whole = a.canMove(s.in)
			s.in.round++
		}
		s.round = s.in.round
	}
	if s.in != nil && s.in.whole && (e.Kind == snapshot.Opaque || e.Kind == snapshot.Delete) {
		return true, nil // nothing is there
	}
	if e.Kind == snapshot.Opaque {
		return false, nil
	}
	dir, name := path.Split(e.Path)
	dir = path.Clean(dir)
	real, ok := a.will[dir]
	var st *unix.Stat_t
	parent := &inroot.Dir{Path: real}
	if !ok {
		f, err := a.Get(dir)
		if err != nil {
			return false, nil
		}
		if err := a.NoteTime(f); err != nil {
			return false, err
		}
		parent = f
		// What came with a new folder stands there itself by now.
		came := s.in != nil && s.in.moved
		if !came && (e.Kind == snapshot.Delete || e.Kind == snapshot.Dir) {
			if st, err = f.Stat(name); err != nil {
				return false, nil
			}
		}
	}
	if e.Kind == snapshot.Delete && st == nil || e.Kind == snapshot.Dir && e.Implied && st != nil {
		return true, nil
	}
	c := a.change(parent, name, e, s)
	if inroot.IsDir(st) && e.Kind == snapshot.Dir {
		fd, err := a.OpenDirAt(parent.FD, name)
		if err != nil {
			return false, nil
		}
		xattrs, err := a.ListXattrs(fd)
		unix.Close(fd)
		if err != nil {
			return false, nil
		}
		a.was(c, st, xattrs)
	} else if e.Kind == snapshot.Dir {
		a.will[e.Path] = string(c.Path)
	}
	a.supersede(c, s)
	s.line = c
	if err := a.to.Journal.Add(c); err != nil {
		return false, err
	}
	return true, nil
}

// supersede marks a line that takes the place of one before, for the same change.
func (a *applier) supersede(c *record.Change, s *staged) {
	if s.announced {
		if a.ev.Again == nil {
			a.ev.Again = make(map[int]int)
		}
		a.ev.Again[c.N]++
		c.Again = a.ev.Again[c.N]
	}
	s.announced = true
}
