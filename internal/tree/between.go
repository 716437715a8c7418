package tree

import (
	"context"
	"iter"
	"maps"
	"os"
	"path"
	"strings"
	"time"

	"github.com/clayer/clayer/cache/snapshot"
)

// Between is what is needed to report how a root changed between two readings of
// it, both made with Options.Live and the same Prune.
type Between struct {
	Before, After *Reading

	// Trusted says that a change moves the ctime of a file, whatever a program
	// does to hide it. Otherwise the digests in the readings decide, and a file
	// without one counts as changed.
	Trusted bool

	// SetBack, if Trusted, is the time to which the clock was set back
	// meanwhile; zero if it was not. A ctime from then on may have come twice:
	// such a file is the same only if the digests say so.
	SetBack time.Time

	// Dirty lists paths that are not as the receiver of the stream has them:
	// they are reported as they are now, whatever happened in between.
	Dirty []string

	Open   func(path string) (*os.File, error) // a file for reading; with Dir, the root, nobody asks it
	Dir    string
	Filter Filter                 // what is reported; nil means everything
	Hide   func(path string) bool // paths that are never reported, nor what is below them; nil means none
}

// Changes returns what was created, modified and deleted between the readings,
// as Upper.Changes does for an overlay: the same change gives the same entries.
//
//   - A file with the same ctime and inode is the same. With another, it
//     depends: what differs in mode, owner, size, mtime or xattrs is reported;
//     where all that is equal, the digests decide, if both readings have them,
//     otherwise it is reported, which is safe.
//   - What is on another mount, in one reading or the other, is passed over,
//     and so is what is below a directory that could not be read.
//   - A name that moved is reported as gone, and as new where it is now.
//
// The comparison is made at once; contents are opened when the stream is read.
func (b *Between) Changes(ctx context.Context) (snapshot.Changes, error) {
	dirty := make(map[string]bool, len(b.Dirty))
	for _, p := range b.Dirty {
		dirty[p] = true
	}
	d := between{Between: b, ctx: ctx, dirty: dirty, reported: make(map[string]bool), list: newPlan(b.Filter)}
	if !b.SetBack.IsZero() {
		d.setBack = stamp{b.SetBack.Unix(), int32(b.SetBack.Nanosecond())}
	}
	for {
		if err := d.directory("", 0, 0); err != nil {
			return nil, err
		}
		if !d.list.again() {
			d.gone()
			return d.list.stream(b.After, fillStill, newSource(b.Open, b.Dir)), nil
		}
	}
}

// gone reports the dirty paths that are in neither reading, as far as they are in
// a directory.
func (d *between) gone() {
	for _, p := range d.Dirty {
		parent, name := path.Split(p)
		at := int32(0)
		for part := range strings.SplitSeq(strings.TrimSuffix(parent, "/"), "/") {
			if part != "" {
				at = d.After.child(at, part)
			}
			if at < 0 || !d.After.at(at).isDir() {
				at = -1
				break
			}
		}
		if at < 0 || d.After.child(at, name) >= 0 || d.reported[p] {
			continue
		}
		if d.Hide != nil && d.Hide(p) || d.Filter != nil && d.Filter.Prune(p) {
			continue
		}
		d.reported[p] = true
		d.list.remove(p)
	}
}

type between struct {
	*Between
	ctx      context.Context
	dirty    map[string]bool
	reported map[string]bool // as gone
	list     plan
	setBack  stamp
}

func (d *between) directory(at string, b, a int32) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	for p := range pairs(d.Before, b, d.After, a) {
		if err := d.name(join(at, p.name), p.before, p.after); err != nil {
			return err
		}
	}
	return nil
}

func (d *between) name(p string, bi, ai int32) error {
	if d.Hide != nil && d.Hide(p) || d.Filter != nil && d.Filter.Prune(p) {
		return nil
	}
	var base, now *node
	if bi >= 0 {
		base = d.Before.at(bi)
	}
	if ai >= 0 {
		now = d.After.at(ai)
	}
	if base != nil && base.is(mount) || now != nil && now.is(mount) {
		return nil
	}
	if base != nil && base.nothing() {
		base = nil
	}
	switch {
	case now == nil || now.nothing():
		if base != nil {
			d.reported[p] = true
			d.list.remove(p)
			if base.isDir() && snapshot.IsScratch(p) && !snapshot.IsScratch(path.Dir(p)) {
				return d.directory(p, bi, -1) // of a scratch directory itself nothing is reported
			}
		}
	case !now.isDir():
		d.list.file(p, ai, now, base, base != nil && !d.dirty[p] && unchanged(d.Before, bi, d.After, ai, d.Trusted, d.setBack))
	case base == nil || !base.isDir():
		defer d.list.enter(p, ai)()
		return d.directory(p, -1, ai)
	default:
		if d.dirty[p] || !sameDir(d.Before.seen(bi), d.After.seen(ai)) {
			d.list.add(p, ai)
		}
		if base.is(closed) || now.is(closed) {
			return nil
		}
		return d.directory(p, bi, ai)
	}
	return nil
}

// unchanged reports whether what is no directory is in the later reading as it was
// in the earlier one.
func unchanged(before *Reading, bi int32, after *Reading, ai int32, trusted bool, risen stamp) bool {
	base, now := before.at(bi), after.at(ai)
	if trusted && base.same(now) && (risen == stamp{} || now.ctime().before(risen)) {
		return !base.is(hasRare) && !now.is(hasRare) || maps.Equal(before.rare[bi].Xattrs, after.rare[ai].Xattrs)
	}
	if !sameThing(before.seen(bi), after.seen(ai)) {
		return false
	}
	if !now.isFile() {
		return true
	}
	if base.linked() && base.Ino != now.Ino {
		return false // another inode: the group is broken up
	}
	if now.Size == 0 {
		return true
	}
	was, ok1 := before.sumOf(bi)
	is, ok2 := after.sumOf(ai)
	if !trusted && !ok1 && !ok2 {
		return base.same(now) // a file that may not be read: it is none of this user's
	}
	return ok1 && ok2 && was == is
}

// A pair is a name of a directory in two readings, -1 where it is not there.
type pair struct {
	name          string
	before, after int32
}

// pairs yields the names of two directories in byte order.
func pairs(before *Reading, b int32, after *Reading, a int32) iter.Seq[pair] {
	return func(yield func(pair) bool) {
		var bi, bEnd, ai, aEnd int32
		if b >= 0 {
			n := before.at(b)
			bi, bEnd = n.Kids, n.Kids+n.Count
		}
		if a >= 0 {
			n := after.at(a)
			ai, aEnd = n.Kids, n.Kids+n.Count
		}
		for bi < bEnd || ai < aEnd {
			p := pair{before: -1, after: -1}
			switch {
			case ai == aEnd || bi < bEnd && before.at(bi).Name < after.at(ai).Name:
				p.name, p.before = before.at(bi).Name, bi
			case bi == bEnd || after.at(ai).Name < before.at(bi).Name:
				p.name, p.after = after.at(ai).Name, ai
			default:
				p = pair{before.at(bi).Name, bi, ai}
			}
			if p.before >= 0 {
				bi++
			}
			if p.after >= 0 {
				ai++
			}
			if !yield(p) {
				return
			}
		}
	}
}

// Hide returns a test for the absolute paths of a root, as paths relative to it; nil
// for none.
func Hide(absolute []string) func(path string) bool {
	if len(absolute) == 0 {
		return nil
	}
	hidden := make(map[string]bool, len(absolute))
	for _, p := range absolute {
		hidden[strings.TrimPrefix(p, "/")] = true
	}
	return func(path string) bool { return hidden[path] }
}
