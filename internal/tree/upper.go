package tree

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// Upper is what is needed to report how the upper directory of an overlay changed,
// and with it the merged tree. The lower tree must not change meanwhile.
type Upper struct {
	Before, After *Reading

	// Lower lists the directories that the overlay lies over, the highest first. They
	// are looked at only for what is new in the upper directory: an overlay copies
	// files up that were opened for writing, and directories above what was changed,
	// without any change of their own.
	Lower []string

	// Below, if set, says how many of them, from the first, a top-level name lies over.
	// nil: all; the whole tree is one overlay.
	Below func(top string) int

	// Owner, if set, is how an owner of the lower tree is called where the
	// readings were made: in a user namespace.
	Owner func(uid, gid uint32) (uint32, uint32)

	// Open opens a file of the upper directory for reading, and OpenLower one of a
	// lower directory. With Dir, the upper directory, the stream opens its files there.
	Open      func(path string) (*os.File, error)
	Dir       string
	OpenLower func(dir, path string) (*os.File, error)

	Filter Filter                 // what is reported; nil means everything
	Hide   func(path string) bool // paths that are never reported, nor what is below them; nil means none
}

// Filter is asked for each change: snapshot.Matcher is one.
type Filter interface {
	// Skip reports that the path is left out.
	Skip(path string) bool
	// Prune reports that the path, and all below it, is left out.
	Prune(path string) bool
}

// Changes returns what was created, modified and deleted between the readings,
// in the order that snapshot.Entry demands:
//
//   - A name is compared with what the merged tree showed before: the entry of
//     the reading before, or else that of the lower tree. Against the reading,
//     a file is the same as Between has it; against the lower tree, by its bytes.
//   - A directory that was deleted and created again is reported by what it lacks and has:
//     what came back as it was is no change.
//   - A file that was one of several hard links is the same only if it still is
//     the same inode. Of a group of hard links with a new or changed
//     member, all members in the upper directory are reported: the first as a File,
//     the others as Links.
//   - Sockets are left out.
//
// The comparison is made at once; contents are opened when the stream is read.
func (u *Upper) Changes(ctx context.Context) (snapshot.Changes, error) {
	lower, err := openLower(u.Lower)
	defer lower.close()
	if err != nil {
		return nil, err
	}
	d := differ{Upper: u, ctx: ctx, same: make(map[int32]bool), list: newPlan(u.Filter)}
	whole := u.Below == nil
	for {
		if err := d.directory("", 0, 0, lowerView{lower, whole, whole}); err != nil {
			return nil, err
		}
		if !d.list.again() {
			return d.list.stream(u.After, fillFrom, newSource(u.Open, u.Dir)), nil
		}
	}
}

// lowerView is a directory of the lower tree, and whether it showed through the
// upper directory in the reading before and after. dir may be set even if it
// never did.
type lowerView struct {
	dir           lowerDir
	before, after bool
}

type differ struct {
	*Upper
	ctx  context.Context
	list plan
	same map[int32]bool // contents that were compared with the lower file, by index in After
}

// directory compares the children of the directory at b in Before (-1: none) with
// those at a in After.
func (d *differ) directory(at string, b, a int32, low lowerView) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if low.before && !low.after {
		return d.hidden(at, b, a, low)
	}
	for p := range pairs(d.Before, b, d.After, a) {
		if err := d.name(at, p.name, p.before, p.after, low); err != nil {
			return err
		}
	}
	return nil
}

// hidden is directory where the lower directory showed before, and does not now: its
// names are gone unless the upper directory has them.
func (d *differ) hidden(at string, b, a int32, low lowerView) error {
	names, err := low.dir.list()
	if err != nil {
		return fmt.Errorf("lower tree: %q: %w", at, err)
	}
	for p := range pairs(d.Before, b, d.After, a) {
		names = append(names, p.name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if err := d.name(at, name, d.Before.child(b, name), d.After.child(a, name), low); err != nil {
			return err
		}
	}
	return nil
}

// name compares one name of a directory: bi and ai are its indices in the
// readings, -1 where it is not there.
func (d *differ) name(at, name string, bi, ai int32, low lowerView) error {
	p := join(at, name)
	if d.Hide != nil && d.Hide(p) || d.Filter != nil && d.Filter.Prune(p) {
		return nil
	}
	if at == "" && d.Below != nil {
		n := d.Below(name)
		low = lowerView{low.dir[:n], n > 0, n > 0}
	}

	// What the merged tree showed before, and what the lower tree holds. A
	// file that the upper directory had before needs no look at the lower one.
	var base, under *seen
	needed := ai < 0 && low.after || bi < 0 && low.before || ai >= 0 && d.After.at(ai).isDir() && (low.before || low.after)
	if needed {
		var err error
		if under, err = low.dir.stat(name, d.Owner); err != nil {
			return fmt.Errorf("lower tree: %q: %w", p, err)
		}
	}
	if bi >= 0 {
		base = d.Before.seen(bi)
	} else if low.before {
		base = under
	}
	if base != nil && base.nothing() {
		base = nil
	}

	if ai < 0 || d.After.at(ai).nothing() {
		// Overlayfs puts a whiteout where a lower name must not show. If it
		// shows all the same, the upper directory was changed by other hands.
		if ai < 0 && low.after && under != nil {
			return fmt.Errorf("upper directory: %q is gone without a whiteout", p)
		}
		if base != nil {
			d.list.remove(p)
			if bi >= 0 && base.isDir() && snapshot.IsScratch(p) && !snapshot.IsScratch(path.Dir(p)) {
				return d.directory(p, bi, -1, lowerView{}) // of a scratch directory itself nothing is reported
			}
		}
		return nil
	}

	now := d.After.seen(ai)
	if now.isDir() {
		return d.dir(p, bi, ai, base, under, low)
	}
	same, err := d.unchanged(p, bi, ai, base, now)
	if err != nil {
		return err
	}
	d.list.file(p, ai, &now.node, base.bare(), same)
	return nil
}

// dir compares a name that is a directory of the upper directory now.
func (d *differ) dir(p string, bi, ai int32, base, under *seen, low lowerView) error {
	now := d.After.seen(ai)
	lowerDir := under != nil && under.isDir()
	child := lowerView{
		before: low.before && lowerDir && base != nil && base.isDir() && !base.is(opaque),
		after:  low.after && lowerDir && !now.is(opaque),
	}
	if child.after && !child.before {
		return fmt.Errorf("upper directory: the lower directory shows through %q again", p)
	}
	if child.before {
		var err error
		if child.dir, err = low.dir.directory(now.Name); err != nil {
			return fmt.Errorf("lower tree: %q: %w", p, err)
		}
		defer child.dir.close()
	}
	if base == nil || !base.isDir() {
		defer d.list.enter(p, ai)()
		return d.directory(p, -1, ai, child)
	}
	if !sameDir(base, now) {
		d.list.add(p, ai)
	}
	return d.directory(p, bi, ai, child)
}

// sameDir is sameMeta of directories.
func sameDir(base, now *seen) bool {
	return sameMeta(base, now) && !(now.is(touched) && base.ctime() != now.ctime())
}

// unchanged reports whether what is no directory is as the merged tree showed it before.
func (d *differ) unchanged(p string, bi, ai int32, base, now *seen) (bool, error) {
	if base == nil {
		return false, nil
	}
	if bi >= 0 {
		return unchanged(d.Before, bi, d.After, ai, true, stamp{}), nil
	}
	if !sameThing(base, now) {
		return false, nil
	}
	if !now.isFile() {
		return true, nil
	}
	if base.linked() && !now.is(copiedUp) {
		return false, nil // another inode: the group is broken up
	}
	if same, ok := d.same[ai]; ok {
		return same, nil
	}
	same, err := d.sameContent(p, now.Size, base.layer)
	d.same[ai] = same
	return same, err
}

// sameThing compares all but the content of what are no directories.
func sameThing(a, b *seen) bool {
	if !sameMeta(a, b) {
		return false
	}
	switch a.kind() {
	case unix.S_IFLNK:
		return a.Target == b.Target
	case unix.S_IFREG, unix.S_IFCHR, unix.S_IFBLK:
		return a.Size == b.Size
	}
	return true
}

// sameMeta compares what an entry holds apart from the content.
func sameMeta(a, b *seen) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		a.mtime() == b.mtime() && maps.Equal(a.Xattrs, b.Xattrs)
}

// sameContent compares a file that was copied up with that of a lower directory.
func (d *differ) sameContent(p string, size int64, lower string) (bool, error) {
	if size == 0 {
		return true, nil
	}
	b, err := d.OpenLower(lower, p)
	if err != nil {
		return false, fmt.Errorf("lower tree: %q: %w", p, err)
	}
	defer b.Close()
	a, err := d.Open(p)
	if err != nil {
		return false, err
	}
	defer a.Close()
	abuf, bbuf := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		if err := d.ctx.Err(); err != nil {
			return false, err
		}
		an, aerr := io.ReadFull(a, abuf)
		bn, berr := io.ReadFull(b, bbuf)
		if !bytes.Equal(abuf[:an], bbuf[:bn]) {
			return false, nil
		}
		if aerr == nil && berr == nil {
			continue
		}
		for _, err := range []error{aerr, berr} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return false, fmt.Errorf("compare %q: %w", p, err)
			}
		}
		return true, nil
	}
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "/" + name
}
