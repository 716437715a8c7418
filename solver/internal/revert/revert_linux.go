// Package revert finds what a root was before steps that are applied to it, as a stream
// of entries: what a view of the root has to be changed by. Nothing is written.
package revert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// A Root is a root, and the record of what was applied to it.
type Root struct {
	Dir   string
	Lower string // the root that it is layered over; "" for none
	State record.Dir
	Sys   inroot.Sys
}

// Revert returns the changes that give back what the root was before the
// events, which are the last of its log; those before them stay. It reads the record,
// the originals and the other names of what has several; nothing is changed: the
// caller applies the changes over a view. Where the root is layered over another one,
// the view shows both: what is reverted is seen as it is there, and what the events
// that stay have deleted is not seen.
func (r *Root) Revert(stay, events []record.Event) (snapshot.Changes, error) {
	return r.RevertOf(stay, events, func(string) bool { return true })
}

// RevertOf is Revert of the paths that are wanted. Of others the changes say nothing.
func (r *Root) RevertOf(stay, events []record.Event, wanted func(path string) bool) (snapshot.Changes, error) {
	v := &reverting{was: make(map[string]*snapshot.Entry), ids: make(map[string]inroot.FileID), names: make(map[inroot.FileID]int)}
	for _, ev := range events {
		originals, err := r.State.Originals(ev.Seq)
		if err != nil {
			return nil, fmt.Errorf("revert %s: %w", ev.Key.Short(), err)
		}
		for c, err := range r.State.ChangesOf(ev, wanted) {
			if err == nil {
				err = v.before(r, ev.Seq, c, originals[c.N])
			}
			if err == nil {
				err = v.database(r, ev.Seq, &c, originals[c.N])
			}
			if err != nil {
				return nil, fmt.Errorf("revert %s: %q: %w", ev.Key.Short(), c.Path, err)
			}
		}
	}
	if err := v.revertDatabases(r); err != nil {
		return nil, err
	}
	if err := v.findOthers(r, r.Dir, func(string, fs.DirEntry) (bool, error) { return true, nil }); err != nil {
		return nil, fmt.Errorf("find the other names of a file: %w", err)
	}
	if r.Lower != "" {
		if err := uncover(v, r, hiddenBy(stay)); err != nil {
			return nil, fmt.Errorf("show the root below: %w", err)
		}
	}
	paths := slices.SortedFunc(maps.Keys(v.was), record.ComparePaths)
	return func(yield func(*snapshot.Entry, error) bool) {
		gone := "" // the path last met that was no directory: what is below goes with the directory there
		first := make(map[inroot.FileID]string)
		for _, p := range paths {
			e := v.was[p]
			if gone != "" && strings.HasPrefix(p, gone) {
				continue
			}
			if e.Kind != snapshot.Dir {
				gone = p + "/"
			}
			if id, several := v.ids[p]; several {
				if target, met := first[id]; met {
					e = &snapshot.Entry{Path: p, Kind: snapshot.Link, Target: target}
				} else {
					first[id] = p
				}
			}
			if uid := os.Geteuid(); uid != 0 {
				// What is his own is root's where he is root: in a view.
				if e.UID == uid {
					e.UID = 0
				}
				if e.GID == os.Getegid() {
					e.GID = 0
				}
			}
			if !yield(e, nil) {
				return
			}
		}
	}, nil
}

// reverting is what a Revert has found.
type reverting struct {
	was   map[string]*snapshot.Entry // by path, what stood there before the first change of it
	ids   map[string]inroot.FileID   // by path, of the files that have several names
	names map[inroot.FileID]int      // how many of their names are not in was
	own   bool                       // a plain user owns what is shown

	databases map[string][]databaseChange // by path, in the order of the log
}

// add notes what stood at a path.
func (v *reverting) add(e *snapshot.Entry, st *unix.Stat_t) {
	if v.own && os.Geteuid() != 0 {
		e.UID, e.GID = os.Geteuid(), os.Getegid()
	}
	v.was[e.Path] = e
	if e.Kind != snapshot.File || st.Nlink < 2 {
		return
	}
	id := inroot.IDOf(st)
	if _, met := v.names[id]; !met {
		v.names[id] = int(st.Nlink)
	}
	v.names[id]--
	v.ids[e.Path] = id
}

// findOthers adds the names that still stand in a tree of files whose other
// names were replaced: they are one file again, and who writes into one name
// writes into all. It asks of each path whether what the tree has there is seen. The
// walk ends when all are found; there is none if no file has a name elsewhere.
func (v *reverting) findOthers(r *Root, tree string, seen func(path string, d fs.DirEntry) (bool, error)) error {
	wanted := 0
	for _, n := range v.names {
		wanted += max(n, 0)
	}
	if wanted == 0 {
		return nil
	}
	var top unix.Stat_t
	if err := r.Sys.Fstatat(unix.AT_FDCWD, tree, &top); err != nil {
		return err
	}
	own := filepath.Clean(r.State.Path())
	var walk func(dir, rel string) error
	walk = func(dir, rel string) error {
		entries, err := r.Sys.ReadDir(dir)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENAMETOOLONG) {
			return nil // what can't be read is not found
		}
		if err != nil {
			return err
		}
		for _, d := range entries {
			if wanted == 0 {
				return nil
			}
			at, p := filepath.Join(dir, d.Name()), path.Join(rel, d.Name())
			was := v.was[p]
			if !d.IsDir() && !d.Type().IsRegular() || was != nil && was.Kind != snapshot.Dir || at == own {
				continue
			}
			if seen, err := seen(p, d); err != nil || !seen {
				if err != nil {
					return err
				}
				continue
			}
			var st unix.Stat_t
			switch err := r.Sys.Fstatat(unix.AT_FDCWD, at, &st); {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENAMETOOLONG):
			case err != nil:
				return err
			case d.IsDir() && st.Dev == top.Dev:
				if err := walk(at, p); err != nil {
					return err
				}
			case d.IsDir():
			case was == nil && v.names[inroot.IDOf(&st)] > 0:
				e, _, err := r.entryAt(at, p)
				if err != nil {
					return err
				}
				v.add(e, &st)
				wanted--
			}
		}
		return nil
	}
	return walk(tree, "")
}

// before notes what stood at the path of a change, and below it for a directory
// that was moved away, where no earlier change has noted it.
func (v *reverting) before(r *Root, seq int, c record.Change, preserved bool) error {
	p := string(c.Path)
	note := func(e *snapshot.Entry) {
		if v.was[e.Path] == nil {
			v.was[e.Path] = e
		}
	}
	switch {
	case c.Was != nil:
		e := &snapshot.Entry{Path: p, Kind: snapshot.Dir, Mode: c.Was.Mode, UID: c.Was.UID, GID: c.Was.GID, ModTime: c.Was.ModTime}
		for k, v := range c.Was.Xattrs {
			if e.Xattrs == nil {
				e.Xattrs = make(map[string]string)
			}
			e.Xattrs[k] = string(v)
		}
		note(e)
		return nil
	case c.Preserved || c.Lost:
		return nil
	default:
		original := r.State.Path(record.OriginalName(seq, c.N))
		switch preserved = preserved && c.MayHaveOriginal(); {
		case !preserved && c.Kind != record.KindGone:
			note(&snapshot.Entry{Path: p, Kind: snapshot.Delete})
			return nil
		case !preserved:
			return nil
		}
		return filepath.WalkDir(original, func(at string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			below, err := filepath.Rel(original, at)
			if err != nil {
				return err
			}
			p := path.Join(p, below)
			if v.was[p] != nil {
				return nil
			}
			e, st, err := r.entryAt(at, p)
			if e != nil && err == nil {
				v.add(e, st)
			}
			return err
		})
	}
}

// entryAt reads a file of the machine as the entry of a path; nil for a socket.
func (r *Root) entryAt(file, p string) (*snapshot.Entry, *unix.Stat_t, error) {
	var st unix.Stat_t
	if err := r.Sys.Fstatat(unix.AT_FDCWD, file, &st); err != nil {
		return nil, nil, err
	}
	e := &snapshot.Entry{
		Path: p, Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()),
		Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind, e.Size = snapshot.File, st.Size
		e.Open = func() (io.ReadCloser, error) { return os.Open(file) }
	case unix.S_IFDIR:
		e.Kind = snapshot.Dir
	case unix.S_IFLNK:
		e.Kind = snapshot.Symlink
		target, err := os.Readlink(file)
		e.Target = target
		return e, &st, err
	case unix.S_IFCHR:
		e.Kind = snapshot.Char
		return e, &st, nil
	case unix.S_IFBLK:
		e.Kind = snapshot.Block
		return e, &st, nil
	case unix.S_IFIFO:
		e.Kind = snapshot.Fifo
		return e, &st, nil
	default:
		return nil, nil, nil
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrPermission) {
		return e, &st, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	xattrs, err := r.Sys.ListXattrs(int(f.Fd()))
	for k, v := range xattrs {
		if e.Xattrs == nil {
			e.Xattrs = make(map[string]string)
		}
		e.Xattrs[k] = string(v)
	}
	return e, &st, err
}
