package rootfs

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/dag/key"
)

// owned is the change that made a path what it should be: the last one of it.
type owned struct {
	Change
	key  key.Key
	done time.Time
}

// owned returns what the applies own, by path: nothing that a later one deleted
// or replaced.
func (r *Root) owned(s *State) (map[string]owned, error) {
	all := make(map[string]owned)
	for _, ev := range slices.Backward(s.Log) {
		for c, err := range r.changesBackward(ev) {
			if err != nil {
				return nil, err
			}
			p := string(c.Path)
			if _, ok := all[p]; !ok && !below(all, p) {
				all[p] = owned{c, ev.Key, ev.Done}
			}
		}
	}
	return all, nil
}

// below reports whether a folder above a path was deleted or replaced.
func below(all map[string]owned, p string) bool {
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if c, ok := all[d]; ok && c.Kind != "dir" {
			return true
		}
	}
	return false
}

// Verify compares the files that the applies own with what was applied, content
// included. The list is sorted by path.
func (r *Root) Verify(ctx context.Context) ([]FileState, error) {
	s, err := r.State()
	if err != nil || len(s.Log) == 0 {
		return nil, err
	}
	all, err := r.owned(s)
	if err != nil {
		return nil, err
	}
	a, err := newApplier(r.dir, hasOpenat2())
	if err != nil {
		return nil, err
	}
	defer a.close()
	list := make([]FileState, 0, len(all))
	for p, o := range all {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		o.done = time.Time{} // content is looked at, whatever the times say
		f := FileState{Path: p, Key: o.key}
		if f.State, f.What, err = a.check(&o); err != nil {
			return nil, fmt.Errorf("%q: %w", p, err)
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(x, y FileState) int { return strings.Compare(x.Path, y.Path) })
	return list, nil
}

// check looks at what stands at an owned path.
func (a *applier) check(o *owned) (DriftState, []string, error) {
	p := string(o.Path)
	f, err := a.getReal(path.Dir(p))
	var st *unix.Stat_t
	if err == nil {
		st, err = stat(f, path.Base(p))
	}
	if missingIsFine(err) != nil {
		return "", nil, err
	}
	switch {
	case o.Kind == "gone" && st != nil:
		return Changed, []string{"made anew"}, nil
	case o.Kind == "gone":
		return AsApplied, nil, nil
	case st == nil:
		return Missing, nil, nil
	}
	var what []string
	if o.Kind == "dir" && isDir(st) {
		var xattrs map[string][]byte
		fd, err := unix.Openat(f.fd, path.Base(p), openFolder|unix.O_NOFOLLOW, 0)
		if err == nil {
			xattrs, err = listXattrs(fd)
			unix.Close(fd)
		}
		if err != nil && !isHard(err) { // this user can't tell
			xattrs = o.Now.Xattrs
		} else if err != nil {
			return "", nil, err
		}
		what = metaDrift(st, o.Now, xattrs)
	} else if what, err = a.drift(f, path.Base(p), st, &o.Change, o.done); err != nil {
		return "", nil, err
	}
	if len(what) > 0 {
		return Changed, what, nil
	}
	return AsApplied, nil, nil
}
