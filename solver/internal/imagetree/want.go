package imagetree

import (
	"archive/tar"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A wanted is a set of files, by path.
type wanted map[string]*node

// all adds what is at a path, and all below it.
func (w wanted) all(p string, n *node) {
	w[p] = n
	for name, child := range n.children {
		w.all(path.Join(p, name), child)
	}
}

// want returns what is needed of a tree for sources of a COPY: what their patterns match with
// all below it, and the links and directories on the way there.
func (t *Tree) want(sources []string) wanted {
	m := matcher{t, wanted{".": t.root}, make(map[string]bool)}
	for _, s := range sources {
		m.match(nil, strings.Split(path.Clean(strings.TrimLeft(s, "/")), "/"), 0)
	}
	return m.found
}

type matcher struct {
	tree  *Tree
	found wanted
	seen  map[string]bool // places, and what is to be matched there
}

// match adds what parts of a pattern match below the directory at a path that has no links.
func (m *matcher) match(at, parts []string, links int) {
	here := path.Join(append([]string{"."}, at...)...)
	place := here + "\x00" + strings.Join(parts, "/")
	if m.seen[place] || links > maxLinks {
		return
	}
	m.seen[place] = true
	dir := m.tree.root
	for _, name := range at {
		dir = dir.children[name]
	}
	m.found[here] = dir
	for len(parts) > 0 && (parts[0] == "" || parts[0] == ".") {
		parts = parts[1:]
	}
	switch {
	case len(parts) == 0, parts[0] == "**": // any number of directories
		m.found.all(here, dir)
		return
	case parts[0] == "..":
		m.match(at[:max(0, len(at)-1)], parts[1:], links)
		return
	}
	for name, child := range dir.children {
		if ok, err := filepath.Match(parts[0], name); !ok || err != nil {
			continue
		}
		switch child.kind {
		case tar.TypeDir:
			m.match(append(slices.Clone(at), name), parts[1:], links)
			continue
		case tar.TypeSymlink:
			up := at
			if path.IsAbs(child.target) {
				up = nil
			}
			m.match(up, append(literal(child.target), parts[1:]...), links+1)
		}
		m.found[path.Join(here, name)] = child
	}
}

var quoted = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// literal returns the parts of a path as patterns that match nothing else.
func literal(p string) []string { return strings.Split(quoted.Replace(p), "/") }
