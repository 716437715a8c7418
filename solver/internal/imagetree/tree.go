package imagetree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// A Tree is the files of an image, without their content.
type Tree struct {
	layers []Layer
	root   *node

	implied int // directories that no member is
	text    int // bytes of names, links and attributes
}

// A node is a file of an image. Hard links are several names of one.
type node struct {
	*meta
	children map[string]*node // of a directory; nil otherwise
	layer    int              // in which its name was last written
}

// meta is what a header says of a file.
type meta struct {
	kind     byte // a tar.Type: Reg, Dir, Symlink, Char, Block or Fifo
	mode     uint32
	uid, gid int
	major    uint32
	minor    uint32
	modTime  time.Time
	target   string // of a symlink
	xattrs   map[string]string

	layer, member int // where its content is
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"

	xattrRecord = "SCHILY.xattr."
)

// Read reads the headers of all layers, the lowest first, and returns the tree that they make.
func Read(ctx context.Context, layers []Layer) (*Tree, error) {
	t := &Tree{layers: layers, root: newDir(&meta{kind: tar.TypeDir, mode: 0o755, modTime: time.Unix(0, 0)}, -1)}
	total := 0
	for i, l := range layers {
		n := 0
		for m, content := range l.members(ctx) {
			if f, ok := content.(failed); ok {
				return nil, f.err
			}
			if total++; total > maxMembers {
				return nil, fmt.Errorf("%s: more than %d files", l.Name, maxMembers)
			}
			if t.text += textOf(m); t.text > maxText {
				return nil, fmt.Errorf("%s: more than %d MiB of names, links and extended attributes", l.Name, maxText>>20)
			}
			if err := t.add(i, n, m); err != nil {
				return nil, fmt.Errorf("%s: %.100q: %w", l.Name, m.Name, err)
			}
			n++
		}
	}
	return t, nil
}

// textOf returns the bytes that the tree keeps of a header.
func textOf(m member) int {
	n := len(path.Base(m.name)) + len(m.Linkname)
	for k, v := range m.PAXRecords {
		if strings.HasPrefix(k, xattrRecord) {
			n += len(k) + len(v)
		}
	}
	return n
}

func newDir(m *meta, layer int) *node { return &node{m, make(map[string]*node), layer} }

// add does to the tree what a member of a layer says. Links in the tree lead as in a root.
func (t *Tree) add(layer, n int, m member) error {
	if m.name == "" {
		if m.Typeflag == tar.TypeDir {
			t.root.meta = metaOf(layer, n, m)
		}
		return nil
	}
	base := strings.Clone(path.Base(m.name)) // a part of it would keep all of the header
	dir, err := t.makeDir(layer, path.Dir(m.name))
	if err != nil {
		return err
	}
	switch {
	case base == opaque:
		for name := range dir.children {
			t.removeBelow(dir, name, layer)
		}
		return nil
	case strings.HasPrefix(base, whiteout+whiteout): // aufs's own
		return nil
	case strings.HasPrefix(base, whiteout):
		name := strings.TrimPrefix(base, whiteout)
		if name == "" || name == "." || name == ".." {
			return errors.New("a whiteout of nothing")
		}
		t.removeBelow(dir, name, layer)
		return nil
	}
	old := dir.children[base]
	switch m.Typeflag {
	case tar.TypeDir:
		made := newDir(metaOf(layer, n, m), layer)
		if old != nil && old.kind == tar.TypeDir {
			made.children = old.children
		}
		dir.children[base] = made
	case tar.TypeLink:
		target, err := clean(m.Linkname)
		if err != nil {
			return fmt.Errorf("hard link: %w", err)
		}
		to, err := t.lookup(target)
		if err != nil {
			return err
		}
		if to == nil || to.kind == tar.TypeDir {
			return fmt.Errorf("hard link to %.100q, which is no file before it", m.Linkname)
		}
		dir.children[base] = &node{meta: to.meta, layer: layer}
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if m.Typeflag == tar.TypeSymlink && (m.Linkname == "" || len(m.Linkname) > maxPath || strings.ContainsRune(m.Linkname, 0)) {
			return errors.New("a symbolic link without a target")
		}
		dir.children[base] = &node{meta: metaOf(layer, n, m), layer: layer}
	default:
		return fmt.Errorf("unknown type %q", m.Typeflag)
	}
	return nil
}

func metaOf(layer, n int, m member) *meta {
	out := &meta{
		kind: m.Typeflag, mode: uint32(m.Mode) & 0o7777, uid: m.Uid, gid: m.Gid, modTime: timeOf(m.ModTime),
		major: uint32(m.Devmajor), minor: uint32(m.Devminor), layer: layer, member: n,
	}
	switch m.Typeflag {
	case tar.TypeSymlink:
		out.target = strings.Clone(m.Linkname)
	case '\x00', tar.TypeCont, tar.TypeGNUSparse:
		out.kind = tar.TypeReg
	}
	for k, v := range m.PAXRecords {
		if name, ok := strings.CutPrefix(k, xattrRecord); ok {
			if out.xattrs == nil {
				out.xattrs = make(map[string]string)
			}
			out.xattrs[strings.Clone(name)] = strings.Clone(v)
		}
	}
	return out
}

// timeOf returns a time that a file can have: a tar may claim any.
func timeOf(t time.Time) time.Time {
	if s := t.Unix(); s < 0 || s >= 1<<33 {
		return time.Unix(0, 0)
	}
	return t
}

// removeBelow removes a name of the layers below one, and all below it.
func (t *Tree) removeBelow(dir *node, name string, layer int) {
	child := dir.children[name]
	if child == nil {
		return
	}
	for below := range child.children {
		t.removeBelow(child, below, layer)
	}
	if child.layer < layer && len(child.children) == 0 {
		delete(dir.children, name)
	}
}

// makeDir returns the directory at a path, where links lead; what is not there is made.
func (t *Tree) makeDir(layer int, p string) (*node, error) {
	at, err := t.walk(p, true, func(dir *node, name string) *node {
		made := newDir(&meta{kind: tar.TypeDir, mode: 0o755, modTime: time.Unix(0, 0), layer: layer, member: -1}, layer)
		dir.children[strings.Clone(name)] = made
		t.implied++
		t.text += len(name)
		return made
	})
	if t.implied > maxImplied {
		return nil, fmt.Errorf("more than %d directories that the layers only imply", maxImplied)
	}
	if err == nil && at.kind != tar.TypeDir {
		err = fmt.Errorf("%.100q is a file, and not a directory", p)
	}
	return at, err
}

// lookup returns what is at a path, links followed but for that of the last name; nil for
// nothing.
func (t *Tree) lookup(p string) (*node, error) {
	return t.walk(p, false, func(*node, string) *node { return nil })
}

// maxLinks is how many links a path may go through, as in the kernel.
const maxLinks = 40

// maxDepth is how deep a file may lie: a name of as many letters as Linux takes can say no more.
const maxDepth = maxPath / 2

// walk follows a path; missing returns what is then where nothing is.
func (t *Tree) walk(p string, last bool, missing func(dir *node, name string) *node) (*node, error) {
	stack, todo := []*node{t.root}, strings.Split(p, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		at := stack[len(stack)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		if at.kind != tar.TypeDir {
			return nil, fmt.Errorf("%.100q leads through a file", p)
		}
		next := at.children[name]
		if next == nil {
			if next = missing(at, name); next == nil {
				return nil, nil
			}
		}
		if next.kind == tar.TypeSymlink && (last || len(todo) > 0) {
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%.100q leads through too many links", p)
			}
			if path.IsAbs(next.target) {
				stack = stack[:1]
			}
			todo = append(strings.Split(next.target, "/"), todo...)
			continue
		}
		if stack = append(stack, next); len(stack) > maxDepth {
			return nil, fmt.Errorf("%.100q leads too deep", p)
		}
	}
	return stack[len(stack)-1], nil
}
