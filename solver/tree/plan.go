package tree

import (
	"fmt"
	"io"
	"maps"
	"os"

	"github.com/clayer/clayer/cache/snapshot"
	"golang.org/x/sys/unix"
)

type extent = snapshot.Extent

// plan lists the entries of a stream before they are made.
type plan struct {
	steps []step
	above []step // new folders around the current path that Keep leaves out
}

type step struct {
	path string
	node int32 // index in the reading
	how  how
}

type how uint8

const (
	whole   how = iota // the entry as it is
	implied            // a folder that is needed above a kept path
	opaque             // the Opaque behind a Dir
	gone               // a Delete
)

func (l *plan) reset() { l.steps, l.above = nil, nil }

func (l *plan) put(k Keep, s step) {
	if k != nil && k.Skip(s.path) {
		return
	}
	l.steps = append(append(l.steps, l.above...), s)
	l.above = l.above[:0]
}

func (l *plan) add(k Keep, path string, node int32) { l.put(k, step{path, node, whole}) }

func (l *plan) opaque(k Keep, path string, node int32) { l.put(k, step{path, node, opaque}) }

func (l *plan) remove(k Keep, path string) { l.put(k, step{path, -1, gone}) }

// enter adds a folder that was not there before. If Keep leaves it out, it is
// added as an implied one as soon as something below it is kept. The function
// that it returns leaves the folder.
func (l *plan) enter(k Keep, path string, node int32) func() {
	if k == nil || !k.Skip(path) {
		l.add(nil, path, node)
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

// stream makes the entries. open opens a file of the tree that r was read from.
func (l *plan) stream(r *Reading, open func(string) (*os.File, error)) snapshot.Changes {
	steps := l.steps
	return func(yield func(*snapshot.Entry, error) bool) {
		first := make(map[uint64]string) // the File of each group of hard links
		for _, s := range steps {
			e, err := makeEntry(r, s, first, open)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func makeEntry(r *Reading, s step, first map[uint64]string, open func(string) (*os.File, error)) (*snapshot.Entry, error) {
	if s.how == gone {
		return &snapshot.Entry{Path: s.path, Kind: snapshot.Delete}, nil
	}
	n := &r.nodes[s.node]
	if s.how == opaque {
		return &snapshot.Entry{Path: s.path, Kind: snapshot.Opaque}, nil
	}
	e := &snapshot.Entry{
		Path: s.path, Mode: n.Mode & 0o7777, UID: int(n.UID), GID: int(n.GID),
		ModTime: n.MTime.time(), Xattrs: maps.Clone(n.Xattrs), Implied: s.how == implied,
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
		e.Major, e.Minor = major(n.Rdev), minor(n.Rdev)
	case unix.S_IFIFO:
		e.Kind = snapshot.Fifo
	case unix.S_IFREG:
		e.Kind, e.Size = snapshot.File, n.Size
		if n.linked() {
			if target, ok := first[n.Ino]; ok {
				e.Kind, e.Target, e.Size = snapshot.Link, target, 0
				return e, nil
			}
			first[n.Ino] = s.path
		}
		e.Open = func() (io.ReadCloser, error) { return openAs(n, s.path, open) }
		if n.Blocks*512 < n.Size {
			f, err := openAs(n, s.path, open)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			if e.Data, err = extents(f, n.Size); err != nil {
				return nil, fmt.Errorf("find the holes of %q: %w", s.path, err)
			}
		}
	default:
		return nil, fmt.Errorf("%q: unknown type of file, mode %o", s.path, n.Mode)
	}
	return e, nil
}

// openAs opens a file, and makes sure that it is still what was read.
func openAs(n *node, path string, open func(string) (*os.File, error)) (*os.File, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != n.Size) {
		err = fmt.Errorf("%q changed while it was captured: %d bytes, now %d", path, n.Size, st.Size())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
