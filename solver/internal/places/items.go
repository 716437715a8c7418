package places

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/names"
)

// Blocks returns what stands where a file, or a directory, is to be put, and does not give
// way to it: no file replaces a directory, and no directory anything else. It is Missing if
// there is no such thing. A link to a directory is one where follow is true.
func (p *Places) Blocks(name string, dir, follow bool) (names.Kind, error) {
	f, err := p.find(name)
	switch {
	case err != nil:
		return names.Missing, err
	case !dir && f.Kind == names.Dir, dir && f.Kind == names.File:
		return f.Kind, nil
	case dir && f.Kind == names.Link:
		if follow {
			if to, err := p.view.Follow(name); err != nil || to.Kind == names.Dir {
				return names.Missing, err
			}
		}
		return names.Link, nil
	}
	return names.Missing, nil
}

func (p *Places) find(name string) (names.Found, error) {
	up, base := path.Split(name)
	dir, err := p.dir(up)
	if err != nil {
		return names.Found{}, err
	}
	return dir.Look(base)
}

// maxItems bounds the items of one step. Those in the upper directories meet what a machine
// has.
const maxItems = 256

// Items are what a step puts below its dest, as far as that is recorded.
type Items struct {
	Follow bool // a link to a directory is as good as one

	paths []string // as in Need.Items
}

// From passes changes on, and makes the items theirs.
func (i *Items) From(changes snapshot.Changes) snapshot.Changes {
	return func(yield func(*snapshot.Entry, error) bool) {
		i.paths = i.paths[:0] // they may be read again
		for e, err := range changes {
			if err == nil && !snapshot.IsScratch(e.Path) {
				i.add(e)
			}
			if !yield(e, err) {
				return
			}
		}
		i.trim()
	}
}

func (i *Items) add(e *snapshot.Entry) {
	p := e.Path
	switch {
	case e.Kind == snapshot.Dir && i.Follow:
		p += "/."
	case e.Kind == snapshot.Dir:
		p += "/"
	}
	if i.paths = append(i.paths, p); len(i.paths) > 16*maxItems {
		i.trim()
	}
}

// trim leaves the items in the upper directories.
func (i *Items) trim() {
	depth := func(p string) int { return strings.Count(bare(p), "/") }
	slices.SortStableFunc(i.paths, func(a, b string) int { return cmp.Compare(depth(a), depth(b)) })
	i.paths = i.paths[:min(len(i.paths), maxItems)]
}

// bare returns the path of an item.
func bare(item string) string {
	return strings.TrimSuffix(strings.TrimSuffix(item, "/."), "/")
}

// Needs returns what another root has to be like for what a step with this dest makes here,
// which are the items.
func (r Root) Needs(d Dest, items *Items) ([]snapshot.Need, error) {
	all := []snapshot.Need{}
	n, ok, err := r.Need(d)
	if err != nil {
		return nil, err
	}
	if ok {
		all = append(all, n)
	}
	dest, kind, err := r.Found.Resolve(strings.Trim(path.Clean("/"+d.Path), "/"))
	if err != nil || d.Path == "" || kind == names.File || snapshot.IsScratch(dest) {
		return all, err
	}
	byDir := make(map[string][]string)
	for _, item := range items.paths {
		at, rel := dest, item
		if dest == "" { // no path: each directory in it has its own need
			at, rel, _ = strings.Cut(item, "/")
			rel = "./" + rel
			if item == at {
				rel = "."
			}
		} else if rel, ok = strings.CutPrefix(item, dest+"/"); !ok || rel == "" || rel == "." {
			continue // dest, or above it
		}
		if ok, err := r.decides(at, rel); err != nil {
			return nil, err
		} else if ok {
			byDir[at] = append(byDir[at], rel)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(byDir)) {
		slices.Sort(byDir[at])
		all = append(all, snapshot.Need{Kind: snapshot.NeedPlace, Path: at, Type: snapshot.PlaceItems, Items: byDir[at]})
	}
	return all, nil
}

// decides reports whether the root without what the key covers decides whether an item can
// be put where it belongs.
func (r Root) decides(at, rel string) (bool, error) {
	for up := path.Join(at, bare(rel)); up != "."; up = path.Dir(up) {
		if r.Covered(up) {
			lacks, err := r.Base(snapshot.Need{Kind: snapshot.NeedPlace, Path: at, Type: snapshot.PlaceItems, Items: []string{rel}})
			return lacks == "", err
		}
	}
	return true, nil
}

// unmetItems returns what the view lacks of a need of items.
func (p *Places) unmetItems(n snapshot.Need) (string, error) {
	for _, item := range n.Items {
		follow := strings.HasSuffix(item, "/.")
		at := path.Join(n.Path, item)
		kind, err := p.Blocks(at, follow || strings.HasSuffix(item, "/"), follow)
		switch {
		case err != nil:
			return "", err
		case kind == names.Dir:
			return fmt.Sprintf("needs /%s, which is a directory here", at), nil
		case kind != names.Missing:
			return fmt.Sprintf("needs /%s to be a directory, which it is not here", at), nil
		}
	}
	return "", nil
}

// AddLater adds to the needs of a step those of a FETCH, COPY or WORKDIR before it, each
// once: it may have looked where that put its files. That there was room is of no use to it.
func AddLater(all, placed []snapshot.Need) []snapshot.Need {
	for _, n := range placed {
		if n.Type != snapshot.PlaceItems && !slices.ContainsFunc(all, func(o snapshot.Need) bool { return reflect.DeepEqual(o, n) }) {
			all = append(all, n)
		}
	}
	return all
}
