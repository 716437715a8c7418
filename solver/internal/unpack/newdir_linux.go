package unpack

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
)

// A newFolder is a directory that nothing stands at, as it seems. It is made in the
// stage directory with all that the chunk puts into it, and moved to its place by one
// rename: most of what a step creates is new, and most of the time that a file
// takes is for names.
//
// Where the rename can't be (something stands there after all, or it is on
// another file system), its files go to their places one by one, from where they
// are.
type newDir struct {
	top   *staged
	made  map[string]bool // it, and those below, by their paths in the stream
	dirs  []*staged       // the same, a directory before those below it
	place placement       // byItself, asTree or moved: see set
	round int             // how often its line was announced: what is in it is announced after it
	reach string          // the chunk ended in this directory: more may come into it
}

// A placement is how an entry gets to its place in the root.
type placement uint8

const (
	byItself placement = iota // by calls of its own
	asTree                    // a new directory, by one rename, with all that is in it
	withTree                  // as a part of that
	moved                     // it came with that rename, and is there
)

// set is the only place that changes how a new directory gets to its place. It may
// change as long as the directory is in the stage directory: the root may not be what
// was expected. What has come stays, and nothing comes that was not announced.
func (t *newDir) set(to placement) {
	switch {
	case t.place == moved, to == withTree, to == moved && t.place != asTree:
		panic(fmt.Sprintf("unpack: a new directory from placement %d to %d", t.place, to))
	}
	t.place = to
}

// placement returns how an entry gets to its place. What was not staged gets there by
// itself.
func (s *staged) placement() placement {
	switch {
	case s == nil || s.in == nil:
		return byItself
	case s.in.place == asTree && s != s.in.top:
		return withTree
	}
	return s.in.place
}

// find decides in which new directory an entry is to be made, if any, beginning one
// where there seems to be nothing.
func (st *stager) find(s *staged) error {
	e := s.e
	if st.new != nil && !inroot.Under(e.Path, st.new.top.e.Path) {
		st.new = nil
	}
	switch {
	case st.new != nil && len(e.Path) < longest:
		dir := path.Dir(e.Path)
		if e.Kind == snapshot.Opaque {
			dir = e.Path
		}
		if err := st.need(dir); err != nil {
			return err
		}
		s.in = st.new
	case st.new == nil && e.Kind == snapshot.Dir && st.isNew(e.Path):
		s.in = &newDir{top: s, made: make(map[string]bool)}
		st.new = s.in
	}
	return nil
}

// longest is how long a path may be, in bytes, that is made in a new directory: the
// kernel takes 4,096 in one call.
const longest = 3500

// isNew reports whether nothing seems to stand at a path. It is asked while the
// root is changed by the chunk before, and links may lead elsewhere: what moves
// something there looks again.
func (st *stager) isNew(p string) bool {
	if len(p) >= longest || p == st.reach || inroot.Under(st.reach, p) {
		return false
	}
	var have unix.Stat_t
	return errors.Is(st.to.Fstatat(st.to.Root, p, &have), unix.ENOENT)
}

// need makes the directories of the new one that an entry needs and no entry describes.
func (st *stager) need(dir string) error {
	if st.new.made[dir] {
		return nil
	}
	if err := st.need(path.Dir(dir)); err != nil {
		return err
	}
	e, err := st.to.implicit(dir)
	if err != nil {
		return err
	}
	s := &staged{e: e, in: st.new, now: st.own.DirMeta(e), implicit: true}
	st.number(s)
	st.chunk = append(st.chunk, s)
	return st.own.makeNew(s)
}

// number gives an entry its number, and its place in the stage directory.
func (st *stager) number(s *staged) {
	s.n = st.to.number()
	s.at = strconv.Itoa(s.n)
	if t := s.in; t != nil && s != t.top {
		s.at = t.top.at + strings.TrimPrefix(s.e.Path, t.top.e.Path)
	}
}

// makeNew makes a directory in the stage directory; it is given its metadata before it is moved.
func (m *maker) makeNew(s *staged) error {
	s.in.made[s.e.Path] = true
	s.in.dirs = append(s.in.dirs, s)
	mode := uint32(0o700)
	if m.isPlain(s.e) {
		mode = s.e.Mode
	}
	s.err = m.Mkdirat(m.stage.FD, s.at, mode)
	if s.err != nil && (inroot.IsHard(s.err) || errors.Is(s.err, unix.EROFS)) {
		return inroot.Hard(s.err)
	}
	return nil
}

// isPlain reports whether a directory that is made with its mode then has all that its
// entry says, but for the time, and hinders no user who puts something into it.
func (m *maker) isPlain(e *snapshot.Entry) bool {
	if m.born == nil || e.Mode&0o700 != 0o700 {
		return false
	}
	_, plain := m.born.mode(e)
	return plain
}

// canMove reports whether a new directory can come to its place as a whole.
func (r *recorder) canMove(t *newDir) bool {
	dir, name := path.Split(t.top.e.Path)
	dir = path.Clean(dir)
	if _, pending := r.will[dir]; pending {
		return false
	}
	f, err := r.Get(dir)
	if err != nil || f.St.Dev != r.stage.St.Dev {
		return false
	}
	st, err := f.Stat(name)
	if err != nil || st != nil {
		return false
	}
	real := path.Join(f.Path, name)
	for p := range r.to.Preserve { // what the user deleted stays deleted
		if p == real || inroot.Under(p, real) {
			return false
		}
	}
	return true
}

// moveNew moves a new directory to its place. Where that can't be, it is not moved,
// and comes file by file.
func (r *recorder) moveNew(parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) error {
	t := s.in
	c := r.change(parent, name, e, s)
	if s.line == nil || !sameLine(s.line, c) {
		t.round++
	}
	if err := r.begin(c, s); err != nil {
		return err
	}
	if err := r.setMetadataOfNew(t); err != nil {
		return err
	}
	err := r.Place(r.stage.FD, s.at, parent.FD, name)
	if err != nil && inroot.IsHard(err) {
		return err
	}
	if err != nil {
		t.set(byItself)
		return nil
	}
	t.set(moved)
	return s.err
}

// setMetadataOfNew gives the directories of a new one their metadata, those into which more
// may come at the end only.
func (r *recorder) setMetadataOfNew(t *newDir) error {
	for _, s := range slices.Backward(t.dirs) {
		if s.err != nil {
			continue
		}
		e := s.e
		mode := -1
		if !r.isPlain(e) {
			fd, err := r.OpenDirAt(r.stage.FD, s.at)
			if err != nil {
				return err
			}
			want, err := r.Attributes(fd, e, nil)
			var have unix.Stat_t
			if err == nil {
				err = r.Fstat(fd, &have)
			}
			unix.Close(fd)
			if err != nil {
				if inroot.IsHard(err) {
					return err
				}
				s.err = err
				continue
			}
			if have.Mode&0o7777 != want {
				mode = int(want)
			}
		}
		ts := inroot.Timespec(e.ModTime)
		if mode < 0 && e.Path != t.reach && !inroot.Under(t.reach, e.Path) {
			if err := r.Utimensat(r.stage.FD, s.at, ts, ts); err != nil {
				return err
			}
			continue
		}
		var have unix.Stat_t
		if err := r.Fstatat(r.stage.FD, s.at, &have); err != nil {
			return err
		}
		r.SetLater(&have, e, mode, true)
	}
	return nil
}
