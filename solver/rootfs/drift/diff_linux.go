package drift

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// Diff returns what changed in the root since the last commit, clayer's own
// changes left out, sorted by path: by the ctimes of files, which every change
// moves, and by what the applies own. What a snapshot leaves out by default is
// left out, and so are other mounts. A deleted file that no apply owns shows in
// its directory alone, as changed, if nothing else in it did. locked is as in Verify.
func Diff(ctx context.Context, root string, rec record.Dir, locked inroot.Locked) ([]FileState, error) {
	since, err := Committed(rec)
	if err != nil || since.IsZero() {
		return nil, err
	}
	return DiffSince(ctx, root, rec, since, locked)
}

// Committed returns when the root was committed last, by the clock of its file
// system; the zero time if it never was.
func Committed(rec record.Dir) (time.Time, error) {
	s, err := rec.State()
	if err != nil || s.Tx == 0 {
		return time.Time{}, err
	}
	return rec.CommittedAt()
}

// DiffSince is Diff for what changed since some other time, also of a root that
// clayer never changed.
func DiffSince(ctx context.Context, root string, rec record.Dir, since time.Time, locked inroot.Locked) ([]FileState, error) {
	s, err := rec.State()
	if err != nil {
		return nil, err
	}
	all, err := ownedBy(rec, s)
	if err != nil {
		return nil, err
	}
	matcher, err := (snapshot.Filter{}).Compile()
	if err != nil {
		return nil, err
	}
	a, err := newComparer(rec.Sys(), root, locked)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	d := &differ{comparer: a, all: all, since: since, skip: matcher.Skip}
	if d.own, _, err = inroot.Below(root, rec.String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // where there is no state directory, none is left out
	}
	var top unix.Stat_t
	if err := a.Fstat(a.Root, &top); err != nil {
		return nil, err
	}
	if _, _, err := d.dir(ctx, a.Root, ".", uint64(top.Dev)); err != nil {
		return nil, err
	}
	for _, p := range slices.Sorted(maps.Keys(all)) {
		o := all[p]
		state, _, err := a.check(ctx, &o)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", p, err)
		}
		if state == Missing {
			d.list = append(d.list, FileState{Path: p, State: Missing, Key: o.key, Dir: o.Kind == record.KindDir})
		}
	}
	slices.SortFunc(d.list, func(x, y FileState) int { return record.ComparePaths(x.Path, y.Path) })
	return d.list, nil
}

type differ struct {
	*comparer
	own   string // the state directory, relative to the root; "" for one elsewhere
	all   map[string]owned
	since time.Time
	skip  func(string) bool
	list  []FileState
}

// directory adds what changed in an open directory, and reports whether anything did,
// and whether anything in it is older.
func (d *differ) dir(ctx context.Context, fd int, at string, dev uint64) (any, older bool, err error) {
	if err := context.Cause(ctx); err != nil {
		return false, false, err
	}
	names, err := d.List(fd)
	if err != nil {
		return false, false, fmt.Errorf("%q: %w", at, err)
	}
	for _, name := range names {
		p := path.Join(at, name)
		if d.skip(p) || p == d.own || strings.HasPrefix(name, record.TempPrefix) || strings.HasPrefix(name, record.TrashPrefix) {
			continue
		}
		changed, old, err := d.path(ctx, fd, name, p, dev)
		if err != nil {
			return false, false, err
		}
		any, older = any || changed, older || old
	}
	return any, older, nil
}

func (d *differ) path(ctx context.Context, fd int, name, p string, dev uint64) (any, older bool, err error) {
	var st unix.Statx_t
	err = unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("%q: %w", p, err)
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if dir && unix.Mkdev(st.Dev_major, st.Dev_minor) != dev {
		return false, true, nil
	}
	below, olderBelow := false, false
	if dir {
		child, err := d.OpenIn(fd, name, p)
		if err == nil {
			below, olderBelow, err = d.dir(ctx, child, p, dev)
			unix.Close(child)
		}
		if err != nil && inroot.IsHard(err) {
			return false, false, err
		}
	}
	later := func(t unix.StatxTimestamp) bool { return time.Unix(t.Sec, int64(t.Nsec)).After(d.since) }
	if !later(st.Ctime) {
		return below, true, nil
	}
	f := FileState{Path: p, Dir: dir}
	o, ours := d.all[p]
	if ours {
		state, what, err := d.checkIn(ctx, &inroot.Dir{FD: fd, Sys: d.Sys}, &o)
		if err != nil {
			return false, false, fmt.Errorf("%q: %w", p, err)
		}
		if state == AsApplied && len(what) == 0 {
			return below, true, nil
		}
		if state == AsApplied {
			state, o.key = Changed, key.Key{} // by nobody of the composition
		}
		f.State, f.What, f.Key = state, what, o.key
	} else if f.State = Changed; st.Mask&unix.STATX_BTIME != 0 && later(st.Btime) && !olderBelow {
		// On an overlay a directory is born, there, when something in it is changed:
		// what it holds decides.
		f.State = New
	}
	if dir && f.State == Changed && !ours && below {
		return true, true, nil // what changed in it is listed
	}
	if !dir {
		f.Size = int64(st.Size)
	}
	d.list = append(d.list, f)
	return true, f.State != New, nil
}
