package unpack

import (
	"bytes"
	"maps"
	"path"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// precheck announces what an entry will do, if that can be seen from the root as
// it is, and what the entries before it do.
func (r *recorder) precheck(s *staged) (bool, error) {
	if s.placement() == moved && s.line != nil && s.round == s.in.round {
		return true, nil // it is there, and its line is after that of the directory
	}
	s.line = nil
	e := s.e
	if s.err != nil {
		return true, nil
	}
	if s.in != nil {
		if s == s.in.top {
			to := byItself
			if r.canMove(s.in) {
				to = asTree
			}
			s.in.set(to)
			s.in.round++
		}
		s.round = s.in.round
	}
	if s.placement() != byItself && (e.Kind == snapshot.Opaque || e.Kind == snapshot.Delete) {
		return true, nil // nothing is there
	}
	if e.Kind == snapshot.Opaque {
		return false, nil
	}
	dir, name := path.Split(e.Path)
	dir = path.Clean(dir)
	real, ok := r.will[dir]
	var st *unix.Stat_t
	parent := &inroot.Dir{Path: real}
	if !ok {
		f, err := r.Get(dir)
		if err != nil {
			return false, nil
		}
		if err := r.NoteTime(f); err != nil {
			return false, err
		}
		parent = f
		// What came with a new directory stands there itself by now.
		came := s.placement() == moved
		if !came && (e.Kind == snapshot.Delete || e.Kind == snapshot.Dir) {
			if st, err = f.Stat(name); err != nil {
				return false, nil
			}
		}
	}
	if e.Kind == snapshot.Delete && st == nil || e.Kind == snapshot.Dir && e.Implied && st != nil {
		return true, nil
	}
	c := r.change(parent, name, e, s)
	if inroot.IsDir(st) && e.Kind == snapshot.Dir {
		fd, err := r.OpenIn(parent.FD, name, path.Join(parent.Path, name))
		if err != nil {
			return false, nil
		}
		xattrs, err := r.ListXattrs(fd)
		unix.Close(fd)
		if err != nil {
			return false, nil
		}
		r.was(c, st, xattrs)
	} else if e.Kind == snapshot.Dir {
		r.will[e.Path] = string(c.Path)
	}
	r.supersede(c, s)
	s.line = c
	if err := r.to.Journal.Add(c); err != nil {
		return false, err
	}
	return true, nil
}

// change returns the record of an entry at a name. s is nil for a directory that others
// need and that was not staged.
func (r *recorder) change(parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) *record.Change {
	p := path.Join(parent.Path, name)
	c := &record.Change{Seq: r.ev.Seq, Path: []byte(p), Kind: record.KindOf(e.Kind), Preserved: r.to.Preserve[p]}
	switch {
	case s == nil: // a directory that is needed, and has no entry
		c.N, c.Now = r.number(), r.DirMeta(e)
	case s.now != nil:
		c.N, c.Now = s.n, s.now
	default:
		c.N = s.n
	}
	if s != nil {
		c.Records = s.records
	}
	switch s.placement() {
	case asTree:
		c.Whole = true
	case withTree, moved:
		c.With = s.in.top.n
	case byItself:
		if s != nil && s.in != nil && s != s.in.top {
			c.From = []byte(s.at)
		}
	}
	return c
}

// begin announces what is about to be done to a path, unless that was expected.
func (r *recorder) begin(c *record.Change, s *staged) error {
	if c.Preserved || c.Records != nil && len(c.Records.Preserved) > 0 {
		r.res.Preserved = append(r.res.Preserved, string(c.Path))
	}
	if !c.Preserved {
		if err := r.openOriginals(); err != nil {
			return inroot.Hard(err)
		}
	}
	if s != nil && s.line != nil && sameLine(s.line, c) {
		return r.to.Journal.Sync() // nothing, unless something else was added since
	}
	if s != nil {
		r.supersede(c, s)
	}
	return r.announce(c)
}

func (r *recorder) announce(c *record.Change) error {
	if err := r.to.Journal.Add(c); err != nil {
		return err
	}
	r.unexpected = true
	return r.to.Journal.Sync()
}

// number returns the number of the next change: of one that is staged, or of one that
// shows as the root is changed, whichever comes first.
func (r *recorder) number() int {
	return int(r.n.Add(1))
}

// sameLine reports whether a change is as it was expected.
func sameLine(x, y *record.Change) bool {
	return string(x.Path) == string(y.Path) && x.Kind == y.Kind && x.N == y.N && x.Preserved == y.Preserved && x.Whole == y.Whole && x.With == y.With && (x.Was == nil) == (y.Was == nil) &&
		(x.Was == nil || x.Was.Mode == y.Was.Mode && x.Was.UID == y.Was.UID && x.Was.GID == y.Was.GID && x.Was.ModTime.Equal(y.Was.ModTime) &&
			maps.EqualFunc(x.Was.Xattrs, y.Was.Xattrs, bytes.Equal))
}

// supersede marks a line that takes the place of one before, for the same change.
func (r *recorder) supersede(c *record.Change, s *staged) {
	if s.announced {
		if r.ev.Again == nil {
			r.ev.Again = make(map[int]int)
		}
		r.ev.Again[c.N]++
		c.Again = r.ev.Again[c.N]
	}
	s.announced = true
}
