package unpack

import (
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/inroot"
)

// A newFolder is a folder that nothing stands at, as it seems. It is made in the
// stage folder with all that the chunk puts into it, and moved to its place by one
// rename: most of what a step brings is new, and most of the time that a file
// takes is for names.
//
// Where the rename can't be (something stands there after all, or it is on
// another file system), its files go to their places one by one, from where they
// are.
type newDir struct {
	top   *staged
	made  map[string]bool // it, and those below, by their paths in the stream
	dirs  []*staged       // the same, a folder before those below it
	whole bool            // it is to come by one rename
	moved bool            // it has
	round int             // how often its line was announced: what is in it is announced behind it
	reach string          // the chunk ended in this folder: more may come into it
}

// find tells in which new folder an entry is to be made, if any, beginning one
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

// longest is how long a path may be, in bytes, that is made in a new folder: the
// kernel takes 4,096 in one call.
const longest = 3500

// isNew reports whether nothing seems to stand at a path. It is asked while the
// root is changed by the chunk before, and links may lead elsewhere: whoever moves
// something there looks again.
func (st *stager) isNew(p string) bool {
	if len(p) >= longest || p == st.reach || inroot.Under(st.reach, p) {
		return false
	}
	var have unix.Stat_t
	return errors.Is(st.to.Fstatat(st.to.Root, p, &have), unix.ENOENT)
}

// need makes the folders of the new one that an entry needs and nobody describes.
func (st *stager) need(dir string) error {
	if st.new.made[dir] {
		return nil
	}
	if err := st.need(path.Dir(dir)); err != nil {
		return err
	}
	e, err := st.to.implied(dir)
	if err != nil {
		return err
	}
	s := &staged{e: e, in: st.new, now: st.own.dirMeta(e), implicit: true}
	st.number(s)
	st.chunk = append(st.chunk, s)
	return st.own.makeNew(s)
}

// number gives an entry its number, and its place in the stage folder.
func (st *stager) number(s *staged) {
	s.n = st.to.number()
	s.at = strconv.Itoa(s.n)
	if t := s.in; t != nil && s != t.top {
		s.at = t.top.at + strings.TrimPrefix(s.e.Path, t.top.e.Path)
	}
}

// makeNew makes a folder in the stage folder; it is dressed before it is moved.
func (a *applier) makeNew(s *staged) error {
	s.in.made[s.e.Path] = true
	s.in.dirs = append(s.in.dirs, s)
	mode := uint32(0o700)
	if a.isPlain(s.e) {
		mode = s.e.Mode
	}
	s.err = a.Mkdirat(a.stageDir.FD, s.at, mode)
	if s.err != nil && (inroot.IsHard(s.err) || errors.Is(s.err, unix.EROFS)) {
		return inroot.Hard(s.err)
	}
	return nil
}

// isPlain reports whether a folder that is made with its mode then has all that its
// entry says, but for the time, and hinders nobody who puts something into it.
func (a *applier) isPlain(e *snapshot.Entry) bool {
	if a.born == nil || e.Mode&0o700 != 0o700 {
		return false
	}
	_, plain := a.born.mode(e)
	return plain
}

// canMove reports whether a new folder can come to its place as a whole.
func (a *applier) canMove(t *newDir) bool {
	dir, name := path.Split(t.top.e.Path)
	dir = path.Clean(dir)
	if _, pending := a.will[dir]; pending {
		return false
	}
	f, err := a.Get(dir)
	if err != nil || f.St.Dev != a.stageDir.St.Dev {
		return false
	}
	st, err := f.Stat(name)
	if err != nil || st != nil {
		return false
	}
	real := path.Join(f.Path, name)
	for p := range a.to.Preserve { // what the user deleted stays deleted
		if p == real || inroot.Under(p, real) {
			return false
		}
	}
	return true
}

// moveNew moves a new folder to its place. Where that can't be, it is not moved,
// and comes file by file.
func (a *applier) moveNew(parent *inroot.Dir, name string, e *snapshot.Entry, s *staged) error {
	t := s.in
	c := a.change(parent, name, e, s)
	if s.line == nil || !sameLine(s.line, c) {
		t.round++
	}
	if err := a.begin(c, s); err != nil {
		return err
	}
	if err := a.setMetadataOfNew(t); err != nil {
		return err
	}
	err := a.Place(a.stageDir.FD, s.at, parent.FD, name)
	if err != nil && inroot.IsHard(err) {
		return err
	}
	t.moved = err == nil
	t.whole = t.moved
	if t.moved {
		return s.err
	}
	return nil
}

// dressNew gives the folders of a new one their metadata, those into which more
// may come at the end only.
func (a *applier) setMetadataOfNew(t *newDir) error {
	for _, s := range slices.Backward(t.dirs) {
		if s.err != nil {
			continue
		}
		e := s.e
		mode := -1
		if !a.isPlain(e) {
			fd, err := a.OpenDirAt(a.stageDir.FD, s.at)
			if err != nil {
				return err
			}
			want, err := a.attributes(fd, e, nil)
			var have unix.Stat_t
			if err == nil {
				err = a.Fstat(fd, &have)
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
			if err := a.Utimensat(a.stageDir.FD, s.at, ts, ts); err != nil {
				return err
			}
			continue
		}
		var have unix.Stat_t
		if err := a.Fstatat(a.stageDir.FD, s.at, &have); err != nil {
			return err
		}
		a.times[inroot.IDOf(&have)] = &dirTime{e.Path, ts, mode}
		a.to.Journal.Made(inroot.IDOf(&have))
	}
	return nil
}
