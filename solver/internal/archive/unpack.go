package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
)

// A Layout is what an archive will look like when it is unpacked: which member
// each path shows in the end. A stream of entries has each path once and directories
// before what they hold; an archive need not. So its headers are read first, for
// the names, and its content in a second pass.
//
// Members are known by their number in the archive's order.
type Layout struct {
	paths map[int][]string // the paths that show a member; several by hard links
	final map[string]int   // and the member that a path shows
	dirs  map[int]dirMeta
	count int // of all members
}

type dirMeta struct {
	mode     uint32
	modTime  time.Time
	uid, gid int
	xattrs   map[string]string
}

// Trim says what the names of members lose.
type Trim struct {
	Top   bool   // their first part: the directory that GitHub puts around a tree
	Below string // all but what is below this directory, or this file, goes
	Strip int    // and then, of the rest, so many leading parts
}

// path returns where a member goes, if anywhere.
func (t Trim) path(name string) (string, bool) {
	ok := true
	if t.Top {
		if name, ok = stripped(name, 1); !ok {
			return "", false
		}
	}
	if t.Below != "" {
		if name == t.Below {
			return path.Base(name), t.Strip == 0 // of a directory, it is dest: see layout
		}
		if name, ok = strings.CutPrefix(name, t.Below+"/"); !ok {
			return "", false
		}
	}
	return stripped(name, t.Strip)
}

// isDest reports whether a member is the very thing that below names.
func (t Trim) isDest(name string) bool {
	if t.Top {
		name, _ = stripped(name, 1)
	}
	return t.Below != "" && name == t.Below
}

// Layout makes the first pass. Names are trimmed.
func (a *Archive) Layout(ctx context.Context, t Trim) (*Layout, error) {
	l := &Layout{
		paths: make(map[int][]string),
		final: make(map[string]int),
		dirs:  make(map[int]dirMeta),
	}
	// Hard links name their target unstripped, and mean what it is at that
	// point of the archive, even if it is replaced later.
	now := make(map[string]int)
	var kinds []snapshot.Kind
	for m, err := range a.members(ctx) {
		if err != nil {
			return nil, err
		}
		n := len(kinds)
		kinds = append(kinds, m.kind)
		name, err := cleanName(m.name)
		if err != nil {
			return nil, fmt.Errorf("%s: %q %w", a.Name, m.name, err)
		}
		if name == "" { // "./": that is dest, which has its own
			if m.kind != snapshot.Dir {
				return nil, fmt.Errorf("%s: %q is no name for a file", a.Name, m.name)
			}
			continue
		}
		switch m.kind {
		case snapshot.Dir:
			l.dirs[n] = dirMeta{m.mode, m.modTime, m.uid, m.gid, m.xattrs}
		case snapshot.Symlink:
			if m.target == "" || strings.ContainsRune(m.target, 0) {
				return nil, fmt.Errorf("%s: %q is a symlink without a target", a.Name, m.name)
			}
		case snapshot.Link:
			target, err := cleanName(m.target)
			if err != nil {
				return nil, fmt.Errorf("%s: %q: hard link to %q, which %w", a.Name, m.name, m.target, err)
			}
			to, ok := now[target]
			if !ok {
				return nil, fmt.Errorf("%s: %q: hard link to %q, which is not before it in the archive", a.Name, m.name, m.target)
			}
			if kinds[to] == snapshot.Dir {
				return nil, fmt.Errorf("%s: %q: hard link to the directory %q", a.Name, m.name, m.target)
			}
			n = to
		}
		now[name] = n
		if p, ok := t.path(name); ok && !(t.isDest(name) && kinds[n] == snapshot.Dir) {
			l.final[p] = n
		}
	}
	l.count = len(kinds)
	for p, n := range l.final {
		for up := path.Dir(p); up != "."; up = path.Dir(up) {
			if above, ok := l.final[up]; ok && kinds[above] != snapshot.Dir {
				// Through a symlink it would land elsewhere, out of dest even.
				return nil, fmt.Errorf("%s: %q lies below %q, which is not a directory", a.Name, p, up)
			}
		}
		l.paths[n] = append(l.paths[n], p)
	}
	for _, ps := range l.paths {
		slices.Sort(ps)
	}
	return l, nil
}

// cleanName returns a member's name as a path below dest; "" for dest itself.
// The error continues a sentence that begins with the name.
func cleanName(name string) (string, error) {
	switch {
	case strings.ContainsRune(name, 0):
		return "", errors.New("holds a zero byte")
	case strings.HasPrefix(name, "/"):
		return "", errors.New("is an absolute name")
	case len(name) > longestPath:
		return "", errors.New("is too long a name")
	}
	clean := path.Clean(name)
	switch {
	case clean == ".":
		return "", nil
	case clean == "..", strings.HasPrefix(clean, "../"):
		return "", errors.New("leaves the archive's directory")
	}
	return clean, nil
}

// stripped returns name without its n leading parts, if it has more.
func stripped(name string, n int) (string, bool) {
	for ; n > 0; n-- {
		_, rest, ok := strings.Cut(name, "/")
		if !ok {
			return "", false
		}
		name = rest
	}
	return name, true
}

// Empty reports whether nothing is left of the archive.
func (l *Layout) Empty() bool { return len(l.final) == 0 }

// Names returns the paths that there will be, sorted; those of directories end in "/".
func (l *Layout) Names() []string {
	all := make(map[string]bool, len(l.final))
	for p, n := range l.final {
		if _, dir := l.dirs[n]; dir {
			all[p+"/"] = true
		} else {
			all[p] = true
		}
		for up := path.Dir(p); up != "." && !all[up+"/"]; up = path.Dir(up) {
			all[up+"/"] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Drop leaves out the paths for which it is asked to. Those of directories end in "/".
func (l *Layout) Drop(drop func(name string) bool) {
	for p, n := range l.final {
		name := p
		if _, dir := l.dirs[n]; dir {
			name += "/"
		}
		if !drop(name) {
			continue
		}
		delete(l.final, p)
		l.paths[n] = slices.DeleteFunc(l.paths[n], func(q string) bool { return q == p })
	}
}

// Directories returns those below dest, by path. One that the archive has no member for is
// implied.
func (l *Layout) Directories(dest string) []*snapshot.Entry {
	var all []*snapshot.Entry
	for _, name := range l.Names() {
		p, dir := strings.CutSuffix(name, "/")
		if !dir {
			continue
		}
		e := &snapshot.Entry{Path: path.Join(dest, p), Kind: snapshot.Dir, Implied: true, Mode: 0o755, ModTime: epoch}
		if n, ok := l.final[p]; ok {
			d := l.dirs[n]
			e.Implied, e.Mode, e.ModTime, e.UID, e.GID, e.Xattrs = false, d.mode, d.modTime, d.uid, d.gid, d.xattrs
		}
		all = append(all, e)
	}
	return all
}

// Unpack makes the second pass, and yields the entries below dest, of each of which set
// sets the owner and, if it has another one, the mode. Directories are implied.
func (a *Archive) Unpack(ctx context.Context, l *Layout, dest string, set func(*snapshot.Entry)) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		made := make(map[string]struct{})
		// dir yields the directory p of the archive, after those above it.
		var dir func(p string) bool
		dir = func(p string) bool {
			if _, ok := made[p]; ok || p == "." {
				return true
			}
			if !dir(path.Dir(p)) {
				return false
			}
			made[p] = struct{}{}
			e := &snapshot.Entry{Path: path.Join(dest, p), Kind: snapshot.Dir, Implied: true, Mode: 0o755, ModTime: epoch}
			if n, ok := l.final[p]; ok {
				e.Mode, e.ModTime = l.dirs[n].mode, l.dirs[n].modTime
			}
			set(e)
			return yield(e, nil)
		}
		n := 0
		for m, err := range a.members(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			first := ""
			for _, p := range l.paths[n] {
				if m.kind == snapshot.Dir {
					if !dir(p) {
						return
					}
					continue
				}
				if !dir(path.Dir(p)) {
					return
				}
				e := &snapshot.Entry{
					Path: path.Join(dest, p), Kind: m.kind, Mode: m.mode, ModTime: m.modTime,
					UID: m.uid, GID: m.gid, Major: m.major, Minor: m.minor, Xattrs: m.xattrs,
				}
				switch {
				case m.kind == snapshot.Char, m.kind == snapshot.Block, m.kind == snapshot.Fifo:
				case m.kind == snapshot.Symlink:
					e.Mode, e.Target = 0o777, m.target
				case first == "":
					first = e.Path
					e.Size = m.size
					e.Open = func() (io.ReadCloser, error) {
						rc, err := m.open()
						if err != nil {
							return nil, fmt.Errorf("%s: %q: %w", a.Name, m.name, err)
						}
						return rc, nil
					}
				default:
					e.Kind, e.Target = snapshot.Link, first
				}
				set(e)
				if !yield(e, nil) {
					return
				}
			}
			n++
		}
		if n != l.count {
			yield(nil, fmt.Errorf("%s: changed while it was unpacked", a.Name))
		}
	}
}
