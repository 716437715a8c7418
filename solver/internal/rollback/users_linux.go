package rollback

import (
	"errors"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/record"
)

// mayBeUsers reports whether what stands at a path may be the user's: it came with a
// change, or stands where what was there has been moved away from.
func (b *rollback) mayBeUsers(f *inroot.Dir, in string, came bool, here, original *unix.Stat_t) (bool, error) {
	if here == nil || came || original == nil {
		return here != nil && came && in != record.InMade, nil
	}
	if in == "" || in == record.InMade {
		return true, nil
	}
	from, err := b.waiting(f, in)
	if err != nil {
		return false, err
	}
	// That has a second link where a rollback was cut off.
	incoming, err := b.stat(from, true)
	return err == nil && (incoming == nil || inroot.IDOf(incoming) != inroot.IDOf(here)), err
}

// stays looks at what stands at a path. It reports whether that stays, since the user
// made it. Of a database, what is put back is changed to have the user's records.
func (b *rollback) stays(c *record.Change, in string, came bool, at place, here *unix.Stat_t, from place, original *unix.Stat_t) (bool, error) {
	if c.Whole && inroot.IsDir(here) {
		return b.clear(c, at)
	}
	changed := !inroot.IsDir(here) || !inroot.IsDir(original) // a directory may come back file by file
	if came {
		var err error
		if changed, err = b.isChanged(c, at, here); err != nil {
			return false, err
		}
	}
	if !changed {
		return false, nil
	}
	if c.Records != nil && record.TypeOf(here) == record.KindFile {
		merged, err := b.merge(c, at, from)
		if merged || err != nil {
			return false, err
		}
	}
	if c.Kind == record.KindUndo && came {
		return false, nil // it becomes the original again, which undo gives back
	}
	b.leave(c, "changed")
	return true, nil
}

// leave leaves a path as the user has it.
func (b *rollback) leave(c *record.Change, why string) {
	left := Left{Path: string(c.Path), Why: why}
	if c.Kind != record.KindUndo {
		change := *c
		left.Change = &change
	}
	b.left = append(b.left, left)
	b.users[left.Path] = true
}

// isChanged reports whether what stands at a path is not what the transaction put there.
// That goes by the time where it is a file: after a loss of power its content may be lost,
// and all of it where the file is empty, which is no change that anybody made.
func (b *rollback) isChanged(c *record.Change, at place, here *unix.Stat_t) (bool, error) {
	kind, want := record.TypeOf(here), c.Kind
	switch {
	case c.Now == nil:
		return false, nil // not known
	case want == record.KindUndo:
		want = record.KindFile
	case want == record.KindLink:
		want = c.Now.Type
	}
	switch {
	case kind != want:
		return true, nil
	case kind == record.KindFile:
		lost := here.Size == 0 && c.Now.Size > 0
		return !lost && !isTime(here.Mtim, inroot.Timespec(c.Now.ModTime)), nil
	case kind == record.KindSymlink && c.Now.Target != nil:
		target, err := b.r.Sys.Readlinkat(at.fd, at.name)
		return err == nil && target != string(c.Now.Target), inroot.UnlessMissing(err)
	}
	return false, nil
}

// isTime reports whether a file has the time that it was given, of which some file
// systems keep less.
func isTime(have, given unix.Timespec) bool {
	return have.Sec == given.Sec && (have.Nsec == given.Nsec || have.Nsec == given.Nsec/1000*1000 || have.Nsec == 0)
}

// merge has what is put back of a database be that with the records that the user has
// changed since. It reports whether that was possible.
func (b *rollback) merge(c *record.Change, at, from place) (bool, error) {
	db, known := databases.Known(c.Records.Database)
	here, like, err := record.ReadDatabase(b.r.Sys, at.fd, at.name)
	if err != nil || !known || like == nil {
		return false, err
	}
	back, meta, err := b.original(c, from)
	if err != nil || !db.CanMerge(here, back) {
		return err == nil, err
	}
	var merged []byte
	var conflicts []databases.Conflict
	if c.Kind == record.KindUndo {
		merged, err = redo(db, here, back, c.Records.Undo)
	} else {
		merged, conflicts, err = undo(db, here, back, c.Records.Undo)
	}
	if err != nil {
		return false, nil // it is no database any more
	}
	if len(conflicts) > 0 {
		var names []string
		for _, x := range conflicts {
			names = append(names, x.Record)
		}
		b.left = append(b.left, Left{Path: string(c.Path), Why: "records changed: " + strings.Join(names, ", ")})
	}
	users, err := db.Diff(back, merged)
	if err != nil || users.IsEmpty() {
		return true, err // the user changed nothing but what is taken back
	}
	if meta != nil {
		meta.ModTime, like = like.ModTime, meta
	}
	return true, b.replaceOriginal(c, merged, like)
}

// original returns the database that is put back, and its metadata if there is such a
// file: nil where the one below shows again.
func (b *rollback) original(c *record.Change, from place) ([]byte, *record.Meta, error) {
	if from.fd >= 0 {
		data, meta, err := record.ReadDatabase(b.r.Sys, from.fd, from.name)
		if meta != nil || err != nil {
			return data, meta, err
		}
	}
	data, _, err := b.r.Below(string(c.Path))
	return data, nil, err
}

// undo undoes the changes in here, but for records that the user has changed since.
func undo(db databases.Database, here, original []byte, c databases.Changes) ([]byte, []databases.Conflict, error) {
	conflicts, err := db.Check(here, c, nil)
	if err != nil {
		return nil, nil, err
	}
	var keys []string
	for _, x := range conflicts {
		keys = append(keys, x.Record)
	}
	rest, _ := c.Without(keys)
	merged, _, err := db.Merge(here, original, rest)
	return merged, conflicts, err
}

// redo makes the changes again that c has undone: those that lead from here to applied.
func redo(db databases.Database, here, applied []byte, c databases.Changes) ([]byte, error) {
	all, err := db.Diff(here, applied)
	if err != nil {
		return nil, err
	}
	var of []databases.Conflict
	for _, name := range c.Names() {
		of = append(of, databases.Conflict{Record: name})
	}
	return db.Force(here, applied, all.Only(of))
}

// replaceOriginal writes what is put back in place of what was to be. A rollback that
// is cut off finds it there, and comes to the same.
func (b *rollback) replaceOriginal(c *record.Change, data []byte, m *record.Meta) error {
	out := c.Out
	if c.Kind != record.KindUndo {
		out = record.OriginalName(c.Seq, c.N)
	}
	dir, err := b.r.State.Held().OpenPrivate(path.Dir(out))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := path.Base(out)
	if err := record.WriteDatabase(b.r.Sys, dir, name+".new", data, m); err != nil {
		return err
	}
	if err := b.r.Sync(); err != nil { // a name must never show half of it
		return err
	}
	return b.r.Sys.Renameat(dir, name+".new", dir, name, 0)
}

// noteWith notes what came with a new directory.
func (b *rollback) noteWith(c *record.Change) {
	key := [2]int{c.Seq, c.With}
	if b.with[key] == nil {
		b.with[key] = make(map[string]*record.Change)
	}
	came := *c
	b.with[key][string(c.Path)] = &came
}

// clear removes what came with a new directory, where the user has put or changed
// something in it, which stays. It reports whether that is so.
func (b *rollback) clear(c *record.Change, at place) (bool, error) {
	key := [2]int{c.Seq, c.N}
	came := b.with[key]
	delete(b.with, key)
	users, err := b.inNew(at, string(c.Path), came, false)
	if err != nil || !users {
		return false, err
	}
	if _, err := b.inNew(at, string(c.Path), came, true); err != nil {
		return false, err
	}
	b.leave(c, "holds files that are not clayer's, or were changed")
	return true, nil
}

// inNew goes through a new directory. It reports whether the user has put or changed
// something in it; if it removes, all else is gone then.
func (b *rollback) inNew(dir place, p string, came map[string]*record.Change, removes bool) (users bool, err error) {
	fd, err := b.open(dir)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	names, err := b.List(fd)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if users && !removes {
			break
		}
		at, below := place{fd, name}, path.Join(p, name)
		st, err := b.stat(at, true)
		if err != nil {
			return false, err
		}
		if st == nil {
			continue // it is gone since
		}
		c, mine := came[below]
		if mine && c.Kind == record.KindDir && inroot.IsDir(st) {
			within, err := b.inNew(at, below, came, removes)
			if err != nil {
				return false, err
			}
			if within {
				users = true
				if removes {
					change := *c
					b.left = append(b.left, Left{Path: below, Why: "holds files that are not clayer's, or were changed", Change: &change})
				}
				continue
			}
		} else if mine {
			changed, err := b.isChanged(c, at, st)
			if err != nil {
				return false, err
			}
			mine = !changed
		}
		switch {
		case !mine:
			users = true
			if removes {
				b.leaveIn(c, below)
			}
		case removes && inroot.IsDir(st):
			err = b.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		case removes:
			err = b.Unlinkat(fd, name, 0)
		}
		if err != nil {
			return false, err
		}
	}
	return users, nil
}

// leaveIn leaves a path in a new directory; c is nil where the user has made it.
func (b *rollback) leaveIn(c *record.Change, p string) {
	if c != nil {
		b.leave(c, "changed")
		return
	}
	b.left = append(b.left, Left{Path: p, Why: "not clayer's"})
	b.users[p] = true
}

// Record records what the rollback of a transaction left as the user has it, with its
// originals, as what an undo has preserved: in a log of its own. It returns the state then.
func Record(dir record.Dir, state *record.State, tx int, left []Left) (_ *record.State, err error) {
	left = slices.DeleteFunc(slices.Clone(left), func(x Left) bool { return x.Change == nil })
	if len(left) == 0 {
		return state, nil
	}
	slices.Reverse(left) // as the changes were made
	order.Stable(left, func(x, y Left) int { return x.Change.Seq - y.Change.Seq })
	next := *state
	next.Tx, next.Preserved = tx+1, slices.Clone(next.Preserved)
	if err := dir.Held().Remove(record.LogName(next.Tx)); err != nil { // of a rollback that was cut off
		return state, err
	}
	journal, err := dir.NewJournal(next.Tx)
	if err != nil {
		return state, err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	for i, x := range left {
		if c := x.Change; i == 0 || c.Seq != left[i-1].Change.Seq {
			next.Seq = max(next.Seq, c.Seq)
			next.Preserved = append(next.Preserved, record.Event{Seq: c.Seq, Tx: next.Tx, From: journal.End()})
		}
		c := *x.Change
		c.Left, c.Again = true, 0
		if err := journal.Add(&c); err != nil {
			return state, err
		}
		next.Preserved[len(next.Preserved)-1].To = journal.End()
	}
	if err := journal.Sync(); err != nil {
		return state, err
	}
	if err := dir.Save(&next, nil, nil); err != nil {
		return state, err
	}
	return &next, nil
}
