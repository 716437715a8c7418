// Package names knows which names a step finds in a root, without a view of it: where a
// path leads, whether a directory is there, and what number a user has. It looks at the
// root as it is, and at the entries of what is not in it yet.
package names

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/pathname"
)

// A Kind is what stands at a path.
type Kind uint8

const (
	Missing Kind = iota
	Dir
	File // or anything else that is no directory
	Link // what Resolve follows
)

// A View is a root as a step finds it. It is not for concurrent use.
type View struct {
	roots []string // looked at in turn: a root, and the one that it is layered over
	top   node     // what changes say of it

	emptied []string // by Empty
	entered bool
}

// New returns the view of a root, which may be layered over another one; "" for none.
func New(root, lower string) *View {
	v := &View{roots: []string{root}, top: node{kind: Dir}}
	if lower != "" {
		v.roots = append(v.roots, lower)
	}
	return v
}

// A node is what changes say of a name.
type node struct {
	kind     Kind
	target   string // of a link
	opaque   bool   // a directory of which nothing is seen but children
	children map[string]*node

	// Where the content of a file is, which few are asked for: in changes, under a path
	// of theirs, or, for nil, in the roots.
	changes snapshot.Changes
	path    string
}

// A place is where a walk through the names has come: a directory.
type place struct {
	path  string
	node  *node    // nil: no change says anything of what is below
	roots []string // the directories of the roots that are merged there
}

func (v *View) at() place { return place{node: &v.top, roots: v.roots} }

// look returns what stands at a name of a directory: the node of a change, or what the
// first of the roots has.
func (p place) look(name string) (n *node, kind Kind, target string, err error) {
	if p.node != nil {
		if n = p.node.children[name]; n != nil {
			return n, n.kind, n.target, nil
		}
		if p.node.opaque {
			return nil, Missing, "", nil
		}
	}
	for _, root := range p.roots {
		at := filepath.Join(root, name)
		info, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			continue
		case err != nil:
			return nil, Missing, "", err
		case info.IsDir():
			return nil, Dir, "", nil
		case info.Mode()&fs.ModeSymlink == 0:
			return nil, File, "", nil
		}
		target, err := os.Readlink(at)
		return nil, Link, target, err
	}
	return nil, Missing, "", nil
}

// enter returns the directory at a name.
func (p place) enter(name string, n *node) place {
	to := place{path: path.Join(p.path, name), node: n}
	if n != nil && n.opaque || p.node != nil && p.node.opaque {
		return to
	}
	for _, root := range p.roots {
		at := filepath.Join(root, name)
		info, err := os.Lstat(at)
		if err == nil && !info.IsDir() {
			break // it hides those below
		}
		if err == nil {
			to.roots = append(to.roots, at)
		}
	}
	return to
}

// walk returns the directory at a path without links.
func (p place) walk(real string) (place, error) {
	for part := range strings.SplitSeq(real, "/") {
		if part == "" || part == "." {
			continue
		}
		n, _, _, err := p.look(part)
		if err != nil {
			return p, err
		}
		p = p.enter(part, n)
	}
	return p, nil
}

// maxLinks is how many links a path may go through, as in the kernel.
const maxLinks = 40

// Resolve follows all links of a path inside the root, and returns the path without
// links, relative to the root ("" for the root), and what stands there. Of a path that
// is missing, the rest is as it is given. The error wraps ENOTDIR, with the path of what
// is no directory, or ELOOP.
func (v *View) Resolve(name string) (string, Kind, error) {
	return v.resolve(name, func(string) {})
}

// Links returns the links that Resolve follows, each by its path without links.
func (v *View) Links(name string) (links []string, err error) {
	_, _, err = v.resolve(name, func(p string) { links = append(links, p) })
	return links, err
}

func (v *View) resolve(name string, follow func(link string)) (string, Kind, error) {
	at := []place{v.at()}
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		here := at[len(at)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		n, kind, target, err := here.look(part)
		if err != nil {
			return "", Missing, err
		}
		p := path.Join(here.path, part)
		switch kind {
		case Missing:
			p = path.Join(append([]string{"/", p}, todo...)...)[1:]
			v.enter(p)
			return p, Missing, nil
		case Dir:
			v.enter(p)
			at = append(at, here.enter(part, n))
		case File:
			if rest := strings.Trim(strings.Join(todo, "/"), "/"); rest != "" {
				return "", File, &fs.PathError{Op: "resolve", Path: "/" + p, Err: syscall.ENOTDIR}
			}
			return p, File, nil
		case Link:
			if links++; links > maxLinks {
				return "", Missing, &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
			}
			follow(p)
			if path.IsAbs(target) {
				at = at[:1]
			}
			todo = append(strings.Split(target, "/"), todo...)
		}
	}
	return at[len(at)-1].path, Dir, nil
}

// Empty has a directory of the roots show nothing of theirs. One that is missing, or in
// a link, is left alone.
func (v *View) Empty(name string) error {
	v.emptied = append(v.emptied, name)
	real, kind, err := v.Resolve(name)
	if err != nil || kind != Dir || real != name {
		return err
	}
	n, err := v.dir(name)
	if err == nil {
		n.opaque, n.children = true, nil
	}
	return err
}

// enter notes that a path leads to p.
func (v *View) enter(p string) {
	v.entered = v.entered || slices.ContainsFunc(v.emptied, func(dir string) bool { return pathname.Under(p, dir) })
}

// Entered reports whether a path led into a directory of Empty since Entered was called
// last.
func (v *View) Entered() bool {
	entered := v.entered
	v.entered = false
	return entered
}

// Lookup returns what stands at a path, of which it follows all links but the last.
func (v *View) Lookup(name string) (Kind, error) {
	real, kind, err := v.Resolve(path.Dir("/" + name))
	if err != nil || kind != Dir {
		return Missing, err
	}
	at, err := v.at().walk(real)
	if err != nil {
		return Missing, err
	}
	_, kind, _, err = at.look(path.Base(name))
	return kind, err
}

// Add makes the view what it is after changes, which are in the order of a snapshot. They
// are read again when a file of theirs is.
func (v *View) Add(changes snapshot.Changes) error { return v.AddNames(changes, changes) }

// AddNames is Add of changes without contents; those of files are in full.
func (v *View) AddNames(changes, full snapshot.Changes) error {
	var in *node // the last directory: entries come together
	dir := ""
	for e, err := range changes {
		if err != nil {
			return err
		}
		up, name := path.Split(e.Path)
		up = path.Clean(up)
		if in == nil || up != dir || e.Kind == snapshot.Opaque {
			if e.Kind == snapshot.Opaque {
				up, name = e.Path, ""
			}
			if e.Kind == snapshot.Delete || e.Kind == snapshot.Opaque {
				if _, kind, err := v.Resolve(up); err != nil || kind != Dir {
					continue // nothing is there to delete
				}
			}
			if in, err = v.dir(up); err != nil {
				return err
			}
			dir = up
		}
		v.set(in, name, e, full)
		if e.Kind != snapshot.File {
			in = nil // names may lead elsewhere now
		}
	}
	return nil
}

// dir returns the node of a directory, which is made where there is none.
func (v *View) dir(name string) (*node, error) {
	real, kind, err := v.Resolve(name)
	if err == nil && kind == File {
		err = &fs.PathError{Op: "resolve", Path: "/" + name, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return nil, err
	}
	n := &v.top
	for part := range strings.SplitSeq(real, "/") {
		if part == "" {
			continue
		}
		next := n.children[part]
		if next == nil || next.kind != Dir {
			// What stands in the roots goes on to be seen, unless a change has removed it.
			next = &node{kind: Dir, opaque: next != nil}
			n.put(part, next)
		}
		n = next
	}
	return n, nil
}

func (n *node) put(name string, child *node) {
	if n.children == nil {
		n.children = make(map[string]*node)
	}
	n.children[name] = child
}

func (v *View) set(in *node, name string, e *snapshot.Entry, full snapshot.Changes) {
	old := in.children[name]
	switch e.Kind {
	case snapshot.Opaque:
		in.opaque, in.children = true, nil
	case snapshot.Delete:
		in.put(name, &node{kind: Missing})
	case snapshot.Dir:
		if old != nil && old.kind == Dir {
			return
		}
		if e.Implied {
			if _, kind, err := v.Resolve(e.Path); err == nil && kind == Dir {
				return // a link to a directory too
			}
		}
		in.put(name, &node{kind: Dir, opaque: old != nil})
	case snapshot.Symlink:
		in.put(name, &node{kind: Link, target: e.Target})
	case snapshot.Link:
		n := &node{kind: File}
		real, _, err := v.Resolve(e.Target)
		if to := v.nodeOf(real); to != nil {
			n.changes, n.path = to.changes, to.path
		} else if err == nil {
			n.path = real
		}
		in.put(name, n)
	case snapshot.File:
		in.put(name, &node{kind: File, changes: full, path: e.Path})
	default:
		in.put(name, &node{kind: File})
	}
}

// nodeOf returns what changes say of a path without links; nil for nothing.
func (v *View) nodeOf(real string) *node {
	n := &v.top
	for part := range strings.SplitSeq(real, "/") {
		if n == nil || part == "" {
			break
		}
		n = n.children[part]
	}
	return n
}

// maxListed is how many entries a List holds.
const maxListed = 4096

// A List is the names of a few changes that pass by: who adds it reads no snapshot.
// Changes that are many are in none.
type List struct {
	entries []*snapshot.Entry
	broken  bool
}

// Of passes changes on, and makes the list theirs.
func (l *List) Of(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		*l = List{} // it may be read again
		for e, err := range changes {
			switch {
			case err != nil || l.broken:
			case len(l.entries) == maxListed:
				*l = List{broken: true}
			default:
				l.entries = append(l.entries, &snapshot.Entry{Path: e.Path, Kind: e.Kind, Implied: e.Implied, Target: e.Target})
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Changes returns the changes, without contents and metadata; ok is false where the list
// is not all of them.
func (l *List) Changes() (changes snapshot.Changes, ok bool) {
	return func(yield func(*snapshot.Entry, error) bool) {
		for _, e := range l.entries {
			if !yield(e, nil) {
				return
			}
		}
	}, l != nil && !l.broken
}

// maxContent bounds the files that are read.
const maxContent = 16 << 20

// ReadFile returns the content of a file. The error is fs.ErrNotExist where there is none.
func (v *View) ReadFile(name string) ([]byte, error) {
	real, kind, err := v.Resolve(name)
	if err != nil {
		return nil, err
	}
	n := v.nodeOf(real)
	switch {
	case kind != File, n != nil && n.path == "":
		return nil, missing(name)
	case n == nil:
		return v.at().readFile(real)
	}
	return v.contentOf(n)
}

// contentOf returns the content of a file that changes have.
func (v *View) contentOf(n *node) ([]byte, error) {
	if n.changes == nil { // as the roots have it, whatever became of that name
		return place{roots: v.roots}.readFile(n.path)
	}
	return readIn(n.changes, n.path)
}

func missing(name string) error {
	return &fs.PathError{Op: "open", Path: "/" + name, Err: fs.ErrNotExist}
}

// readFile returns the content of a file of the roots.
func (p place) readFile(name string) ([]byte, error) {
	at, err := p.walk(path.Dir(name))
	if err != nil {
		return nil, err
	}
	for _, root := range at.roots {
		f, err := os.OpenFile(filepath.Join(root, path.Base(name)), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(err, &fs.PathError{Op: "read", Path: "/" + name, Err: fs.ErrInvalid})
		}
		return readAll(name, f)
	}
	return nil, missing(name)
}

// readIn returns the content of a file in changes.
func readIn(changes snapshot.Changes, name string) ([]byte, error) {
	for e, err := range changes {
		if err != nil {
			return nil, err
		}
		if e.Path != name || e.Kind != snapshot.File {
			continue
		}
		if e.Content != nil || e.Size == 0 {
			return readAll(name, bytes.NewReader(e.Content))
		}
		f, err := e.Open()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readAll(name, f)
	}
	return nil, missing(name)
}

func readAll(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxContent+1))
	if err == nil && len(data) > maxContent {
		err = fmt.Errorf("/%s: larger than %d MiB", name, maxContent>>20)
	}
	return data, err
}
