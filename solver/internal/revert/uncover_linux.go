package revert

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// An uncovering completes what is reverted in a root that is layered over another one:
// there, what an event made has to give way to what the root below has at its path.
type uncovering struct {
	*reverting
	lower  reverting // of the same paths, what the root below has there
	r      *Root
	hidden map[string]bool // what the events that stay have deleted, as Event.Hidden
}

func hiddenBy(events []record.Event) map[string]bool {
	hidden := make(map[string]bool)
	for _, p := range record.Hidden(events) {
		hidden[p] = true
	}
	return hidden
}

// uncover completes what is reverted by the events after those that have hidden names of
// the root below.
func uncover(v *reverting, r *Root, hidden map[string]bool) error {
	u := &uncovering{reverting: v, r: r, hidden: hidden}
	u.lower = reverting{was: v.was, ids: v.ids, names: make(map[inroot.FileID]int), own: true}
	for _, p := range slices.SortedFunc(maps.Keys(u.was), record.ComparePaths) {
		if u.was[p].Kind == snapshot.Delete {
			if err := u.uncover(p); err != nil {
				return err
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(u.hidden)) {
		dir, all := strings.CutSuffix(p, "/")
		if !all || u.isDir(dir) {
			if err := u.hide(dir); err != nil {
				return err
			}
		}
	}
	return u.lower.findOthers(u.r, u.r.Lower, u.shows)
}

// shows reports whether what the root below has at a path is seen there, in a directory
// that is: a directory, if anything of it is.
func (u *uncovering) shows(p string, d fs.DirEntry) (bool, error) {
	if snapshot.IsScratch(p) || record.IsHidden(u.hidden, p) || filepath.Join(u.r.Lower, p) == u.r.Dir {
		return false, nil
	}
	if u.was[p] != nil {
		return d.IsDir(), nil
	}
	here, err := lstat(filepath.Join(u.r.Dir, p))
	return here == nil || d.IsDir() && inroot.IsDir(here), err
}

// below returns what the root below has at a path; nil for nothing. A directory of the
// root merges with a directory there, and with nothing else.
func (u *uncovering) below(p string) (*unix.Stat_t, error) {
	for i, c := range p + "/" {
		if c != '/' {
			continue
		}
		st, err := lstat(filepath.Join(u.r.Lower, p[:i]))
		if st == nil || err != nil || i == len(p) {
			return st, err
		}
		if !inroot.IsDir(st) {
			return nil, nil
		}
	}
	return nil, nil
}

func lstat(at string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(at, &st); {
	case err == nil:
		return &st, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EACCES):
		return nil, nil
	default:
		return nil, &os.PathError{Op: "lstat", Path: at, Err: err}
	}
}

// uncover notes what stands at a path when what the events made there is gone: what
// the root below has.
func (u *uncovering) uncover(p string) error {
	under, err := u.below(p)
	if err != nil {
		return err
	}
	if under == nil || record.IsHidden(u.hidden, p) {
		u.was[p] = &snapshot.Entry{Path: p, Kind: snapshot.Delete}
		return nil
	}
	here, err := lstat(filepath.Join(u.r.Dir, p))
	if err != nil {
		return err
	}
	if !inroot.IsDir(under) || !inroot.IsDir(here) {
		return u.copyOf(p)
	}
	if err := u.likeBelow(p, here); err != nil {
		return err
	}
	names, err := os.ReadDir(filepath.Join(u.r.Dir, p))
	if err != nil {
		return err
	}
	for _, d := range names {
		c := path.Join(p, d.Name())
		if was := u.was[c]; was == nil || was.Kind == snapshot.Delete {
			if err := u.uncover(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// likeBelow notes that a directory looks as it does in the root below. A plain user's
// stays his, and he may put something into it.
func (u *uncovering) likeBelow(p string, here *unix.Stat_t) error {
	e, _, err := u.r.entryAt(filepath.Join(u.r.Lower, p), p)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		e.UID, e.GID = int(here.Uid), int(here.Gid)
		e.Mode |= 0o700
	}
	u.was[p] = e
	return nil
}

// copyOf notes a copy of what the root below has at a path.
func (u *uncovering) copyOf(p string) error {
	top := filepath.Join(u.r.Lower, p)
	return filepath.WalkDir(top, func(at string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) {
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		below, err := filepath.Rel(top, at)
		if err != nil {
			return err
		}
		p := path.Join(p, below)
		if record.IsHidden(u.hidden, p) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		e, st, err := u.r.entryAt(at, p)
		if err != nil || e == nil {
			return err
		}
		u.lower.add(e, st)
		return nil
	})
}

// isDir reports whether the root has a directory at a path when all is reverted.
func (u *uncovering) isDir(p string) bool {
	if was := u.was[p]; was != nil {
		return was.Kind == snapshot.Dir
	}
	st, err := lstat(filepath.Join(u.r.Dir, p))
	return err == nil && inroot.IsDir(st)
}

// hide notes that nothing of the root below is seen at a path, but what the root has
// there itself.
func (u *uncovering) hide(p string) error {
	under, err := u.below(p)
	if err != nil || under == nil {
		return err
	}
	here, err := lstat(filepath.Join(u.r.Dir, p))
	if err != nil {
		return err
	}
	switch was := u.was[p]; {
	case was == nil && here == nil, was != nil && was.Kind == snapshot.Delete:
		u.was[p] = &snapshot.Entry{Path: p, Kind: snapshot.Delete}
		return nil
	case !inroot.IsDir(under) || !u.isDir(p):
		return nil
	}
	names, err := os.ReadDir(filepath.Join(u.r.Lower, p))
	for _, d := range names {
		err = errors.Join(err, u.hide(path.Join(p, d.Name())))
	}
	return err
}
