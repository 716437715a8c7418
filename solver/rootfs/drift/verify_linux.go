package drift

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/record"
)

// owned is the change that made a path what it should be: the last one of it.
type owned struct {
	record.Change
	key  key.Key
	done time.Time

	// Of a database of which records were changed: what undoes that, of the last apply
	// first.
	records []databases.Changes
	open    bool // an apply before may have changed other records
}

// ownedBy returns what the applies own, by path: nothing that a later one deleted
// or replaced.
func ownedBy(d record.Dir, s *record.State) (map[string]owned, error) {
	all := make(map[string]owned)
	var gone hidden
	log := s.Log
	if s.Profile != nil {
		log = append(slices.Clone(log), *s.Profile)
	}
	for _, ev := range slices.Backward(log) {
		for c, err := range d.ChangesBackward(ev) {
			if err != nil {
				return nil, err
			}
			p := string(c.Path)
			if o, ok := all[p]; ok && o.open {
				if o.open = c.Records != nil; o.open {
					o.records = append(o.records, c.Records.Undo)
				}
				all[p] = o
			} else if !ok && !gone.hides(p) {
				o := owned{Change: c, key: ev.Key, done: ev.Done}
				if o.open = c.Records != nil; o.open {
					o.records = []databases.Changes{c.Records.Undo}
				}
				all[p] = o
				if c.Kind != record.KindDir {
					gone.add(p)
				}
			}
		}
	}
	return all, nil
}

// hidden is a set of paths at which no directory is any more. They are found by a hash
// that is carried on from name to name, so that a path is gone through once.
type hidden struct {
	seed  maphash.Seed
	paths map[uint64]bool
	hash  maphash.Hash
}

func (h *hidden) add(p string) {
	if h.paths == nil {
		h.seed, h.paths = maphash.MakeSeed(), make(map[uint64]bool)
		h.hash.SetSeed(h.seed)
	}
	h.paths[maphash.String(h.seed, p)] = true
}

// hides reports whether a path is below one of the set.
func (h *hidden) hides(p string) bool {
	if len(h.paths) == 0 {
		return false
	}
	h.hash.Reset()
	for {
		i := strings.IndexByte(p, '/')
		if i < 0 {
			return false
		}
		h.hash.WriteString(p[:i])
		if h.paths[h.hash.Sum64()] {
			return true
		}
		h.hash.WriteByte('/')
		p = p[i+1:]
	}
}

// Verify compares the files of a root that the applies own with what was applied, content
// included. The list is sorted by path. locked is called before a directory of the user's
// that hinders him is unlocked; nil unlocks none.
func Verify(ctx context.Context, root string, d record.Dir, locked inroot.Locked) ([]FileState, error) {
	s, err := d.State()
	if err != nil || len(s.Log) == 0 && s.Profile == nil {
		return nil, err
	}
	all, err := ownedBy(d, s)
	if err != nil {
		return nil, err
	}
	a, err := newComparer(d.Sys(), root, locked)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	list := make([]FileState, 0, len(all))
	for _, p := range slices.Sorted(maps.Keys(all)) { // a directory before what is in it
		o := all[p]
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		o.done = time.Time{} // content is looked at, whatever the times say
		f := FileState{Path: p, Key: o.key}
		if f.State, f.What, err = a.check(ctx, &o); err != nil {
			return nil, fmt.Errorf("%q: %w", p, err)
		}
		if f.State == AsApplied {
			f.What = nil
		}
		list = append(list, f)
	}
	return list, nil
}

// comparer is one comparison of a root.
type comparer struct {
	*inroot.Dirs
	buf   []byte
	modes map[inroot.FileID]uint32 // that directories had before they were unlocked
}

func newComparer(sys inroot.Sys, root string, locked inroot.Locked) (*comparer, error) {
	fs, err := sys.OpenDirs(root)
	if err != nil {
		return nil, err
	}
	a := &comparer{fs, make([]byte, 128<<10), make(map[inroot.FileID]uint32)}
	if locked != nil {
		fs.Locked = func(p string, st *unix.Stat_t) error {
			a.modes[inroot.IDOf(st)] = st.Mode
			return locked(p, st)
		}
	}
	return a, nil
}

// check looks at what stands at an owned path. What is as applied may have changed in
// records of a database that are not clayer's: what says so.
func (a *comparer) check(ctx context.Context, o *owned) (DriftState, []string, error) {
	p := string(o.Path)
	f, err := a.GetReal(path.Dir(p))
	if inroot.UnlessMissing(err) != nil {
		return "", nil, err
	}
	return a.checkIn(ctx, f, o)
}

// find returns what stands at a path, and its directory and name; nil where nothing does.
func (a *comparer) find(p string) (f *inroot.Dir, name string, st *unix.Stat_t, err error) {
	if f, err = a.GetReal(path.Dir(p)); err == nil {
		name = path.Base(p)
		st, err = f.Stat(name)
	}
	return f, name, st, inroot.UnlessMissing(err)
}

// changedSince reports whether a file was changed after a time, in any way.
func changedSince(st *unix.Stat_t, at time.Time) bool { return time.Unix(st.Ctim.Unix()).After(at) }

// checkIn is check in the open directory of the path; nil where that is missing.
func (a *comparer) checkIn(ctx context.Context, f *inroot.Dir, o *owned) (DriftState, []string, error) {
	p := string(o.Path)
	var st *unix.Stat_t
	var err error
	if f != nil {
		if st, err = f.Stat(path.Base(p)); inroot.UnlessMissing(err) != nil {
			return "", nil, err
		}
	}
	switch {
	case o.Kind == record.KindGone && st != nil:
		return Changed, []string{"created again"}, nil
	case o.Kind == record.KindGone:
		return AsApplied, nil, nil
	case st == nil:
		return Missing, nil, nil
	}
	var what []string
	if o.Kind == record.KindDir && inroot.IsDir(st) {
		var xattrs map[string][]byte
		fd, err := a.OpenIn(f.FD, path.Base(p), p)
		if err == nil {
			xattrs, err = a.ListXattrs(fd)
			unix.Close(fd)
		}
		if err != nil && !inroot.IsHard(err) { // permission denied
			xattrs = o.Now.Xattrs
		} else if err != nil {
			return "", nil, err
		}
		if mode, was := a.modes[inroot.IDOf(st)]; was {
			st.Mode = mode
		}
		what = OfDir(st, o.Now, xattrs)
	} else if what, err = Of(ctx, f, path.Base(p), st, &o.Change, o.done, a.buf); err != nil {
		return "", nil, err
	}
	if len(what) == 0 {
		return AsApplied, nil, nil
	}
	if len(o.records) == 0 || inroot.IsDir(st) {
		return Changed, what, nil
	}
	return ofRecords(f, path.Base(p), o.Records.Database, what, databases.Join(o.records...))
}

// ofRecords says how a database stands to what was applied, if the file differs from it
// by what: undo leads back to what it was before.
func ofRecords(f *inroot.Dir, name, p string, what []string, undo databases.Changes) (DriftState, []string, error) {
	db, known := databases.Known(p)
	if !known || slices.ContainsFunc(what, func(w string) bool { return w != "size" && w != "time" && w != "content" }) {
		return Changed, what, nil
	}
	here, like, err := record.ReadDatabase(f.Sys, f.FD, name)
	if like == nil || err != nil {
		return Changed, what, err
	}
	conflicts, err := db.Drift(here, undo)
	if err != nil {
		return Changed, what, nil // too large, or no database any more
	}
	if len(conflicts) == 0 {
		return AsApplied, []string{"other records"}, nil
	}
	what = what[:0:0]
	for _, c := range conflicts {
		what = append(what, c.String())
	}
	return Changed, what, nil
}
