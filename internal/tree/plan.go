package tree

import (
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// plan lists the entries of a stream before they are made.
type plan struct {
	filter Filter // nil means everything
	steps  []step
	above  []step            // new directories around the current path that Filter leaves out
	groups map[uint64]bool   // inodes of link groups with a change
	was    map[uint64]uint64 // what inode the first unchanged member of a group had before
	known  int               // how many of them there were when this pass began
}

type step struct {
	path string
	node int32 // index in the reading
	how  how
}

type how uint8

const (
	whole   how = iota // the entry as it is
	implied            // a directory that is needed above a captured path
	gone               // a Delete
)

func newPlan(filter Filter) plan {
	return plan{filter: filter, groups: make(map[uint64]bool), was: make(map[uint64]uint64)}
}

// again reports whether the comparison has to be made once more, and forgets
// what it gave: a member of a group that comes before the changed one in order
// was passed over.
func (l *plan) again() bool {
	if len(l.groups) == l.known {
		return false
	}
	l.known, l.steps, l.above = len(l.groups), nil, nil
	return true
}

func (l *plan) put(s step) {
	if l.filter != nil && l.filter.Skip(s.path) {
		return
	}
	l.steps = append(append(l.steps, l.above...), s)
	l.above = l.above[:0]
}

func (l *plan) add(path string, node int32) { l.put(step{path, node, whole}) }

func (l *plan) remove(path string) { l.put(step{path, -1, gone}) }

// file adds what is no directory, if it changed or its group did. base is what it
// was before. Unchanged files that were apart, and now are one, are a change.
func (l *plan) file(path string, i int32, n *node, base *node, same bool) {
	if same && n.linked() {
		if was, ok := l.was[n.Ino]; ok && was != base.Ino {
			l.groups[n.Ino] = true
		} else {
			l.was[n.Ino] = base.Ino
		}
	}
	if same && !(n.linked() && l.groups[n.Ino]) || l.filter != nil && l.filter.Skip(path) {
		return
	}
	if n.linked() {
		l.groups[n.Ino] = true
	}
	l.add(path, i)
}

// enter adds a directory that was not there before. If Filter leaves it out, it is
// added as an implied one as soon as something below it is captured. The function
// that it returns leaves the directory.
func (l *plan) enter(path string, node int32) func() {
	if l.filter == nil || !l.filter.Skip(path) {
		l.add(path, node)
		return func() {}
	}
	l.above = append(l.above, step{path, node, implied})
	n := len(l.above)
	return func() {
		if len(l.above) >= n {
			l.above = l.above[:n-1]
		}
	}
}

// A filler completes the entry of a file that was read as n: its content.
type filler func(n *node, path string, e *snapshot.Entry) error

// stream makes the entries, with the content of files as fill has it of a source.
func (l *plan) stream(r *Reading, fill func(*source) filler, from *source) snapshot.Changes {
	steps := l.steps
	filled := fill(from)
	return func(yield func(*snapshot.Entry, error) bool) {
		defer from.close()
		first := make(map[linked]string) // the File of each group of hard links
		for _, s := range steps {
			e, err := makeEntry(r, s, first, filled)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// linked names a group of hard links. One that is in the root and in scratch is two: a
// root gets the former alone.
type linked struct {
	ino     uint64
	scratch string // the directory
}

func makeEntry(r *Reading, s step, first map[linked]string, fill filler) (*snapshot.Entry, error) {
	if s.how == gone {
		return &snapshot.Entry{Path: s.path, Kind: snapshot.Delete}, nil
	}
	n := r.seen(s.node)
	e := &snapshot.Entry{
		Path: s.path, Mode: uint32(n.Mode) & 0o7777, UID: int(n.UID), GID: int(n.GID),
		ModTime: n.mtime().time(), Xattrs: maps.Clone(n.Xattrs), Implied: s.how == implied,
	}
	switch n.kind() {
	case unix.S_IFDIR:
		e.Kind = snapshot.Dir
	case unix.S_IFLNK:
		e.Kind, e.Target = snapshot.Symlink, n.Target
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Kind = snapshot.Char
		if n.kind() == unix.S_IFBLK {
			e.Kind = snapshot.Block
		}
		e.Major, e.Minor = major(uint64(n.Size)), minor(uint64(n.Size))
	case unix.S_IFIFO:
		e.Kind = snapshot.Fifo
	case unix.S_IFREG:
		e.Kind, e.Size = snapshot.File, n.Size
		if n.linked() {
			if target, ok := first[linked{n.Ino, snapshot.ScratchDir(s.path)}]; ok {
				e.Kind, e.Target, e.Size = snapshot.Link, target, 0
				return e, nil
			}
		}
		if err := fill(&n.node, s.path, e); err != nil {
			return nil, err
		}
		if n.linked() && e.Kind == snapshot.File {
			first[linked{n.Ino, snapshot.ScratchDir(s.path)}] = s.path
		}
	default:
		return nil, fmt.Errorf("%q: unknown type of file, mode %o", s.path, n.Mode)
	}
	return e, nil
}

// ErrBusy says that a file changed while it was captured. A stream of a root
// can be read once more: it then reports files as they are by then.
var ErrBusy = errors.New("changed while it was captured")
