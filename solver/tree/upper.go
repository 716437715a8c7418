package tree

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"

	"github.com/clayer/clayer/cache/snapshot"
	"golang.org/x/sys/unix"
)

// Upper is what is needed to tell how the upper folder of an overlay changed,
// and with it the merged tree. The lower tree must not change meanwhile.
type Upper struct {
	Before, After *Reading

	// Lower is the folder that the overlay lies over. It is looked at only
	// for what is new in the upper folder: an overlay copies files up that
	// were opened for writing, and folders above what was changed, without
	// any change of their own.
	Lower string

	// Merged, if set, says which of the top-level folders lie over the lower
	// folder of the same name; the others, and the names of the top itself,
	// have nothing below them. nil: the whole tree is one overlay.
	Merged func(top string) bool

	// Ownerless is as in the options that the readings were made with.
	Ownerless bool

	// Open opens a file of the upper folder for reading.
	Open func(path string) (*os.File, error)

	Keep Keep                   // what is told; nil means everything
	Hide func(path string) bool // paths that are never told, nor what is below them; nil means none
}

// Keep is asked for each change: snapshot.Matcher is one.
type Keep interface {
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
//     ctime and inode decide about a file; against the lower tree, its bytes.
//   - A folder whose lower content was hidden between the readings becomes a
//     Dir and an Opaque, and all that it holds is told again.
//   - Of a group of hard links with a new or changed member, all members in
//     the upper folder are told: the first as a File, the others as Links.
//   - Sockets are left out.
//
// The comparison is made at once; contents are opened when the stream is read.
func (u *Upper) Changes(ctx context.Context) (snapshot.Changes, error) {
	lower, err := openLower(u.Lower)
	if err != nil {
		return nil, err
	}
	defer lower.close()
	d := differ{Upper: u, ctx: ctx, same: make(map[int32]bool), groups: make(map[uint64]bool)}
	whole := u.Merged == nil
	if err := d.folder("", 0, 0, lowerView{lower, whole, whole}); err != nil {
		return nil, err
	}
	if len(d.groups) > 0 {
		// A member that comes before the changed one in order was passed
		// over; now the groups are known.
		d.list.reset()
		if err := d.folder("", 0, 0, lowerView{lower, whole, whole}); err != nil {
			return nil, err
		}
	}
	return d.list.stream(u.After, u.Open), nil
}

// lowerView is a folder of the lower tree, and whether it showed through the
// upper folder in the reading before and after. dir may be set even if it
// never did.
type lowerView struct {
	dir           *lowerDir
	before, after bool
}

type differ struct {
	*Upper
	ctx    context.Context
	list   plan
	same   map[int32]bool  // contents that were compared with the lower file, by index in After
	groups map[uint64]bool // inodes of link groups with a change
}

// folder compares the children of the folder at b in Before (-1: none) with
// those at a in After.
func (d *differ) folder(at string, b, a int32, low lowerView) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	bs, as := d.Before.list(b), d.After.list(a)
	for len(bs) > 0 || len(as) > 0 {
		bi, ai := int32(-1), int32(-1)
		switch {
		case len(as) == 0 || len(bs) > 0 && d.Before.nodes[bs[0]].Name < d.After.nodes[as[0]].Name:
			bi, bs = bs[0], bs[1:]
		case len(bs) == 0 || d.After.nodes[as[0]].Name < d.Before.nodes[bs[0]].Name:
			ai, as = as[0], as[1:]
		default:
			bi, bs, ai, as = bs[0], bs[1:], as[0], as[1:]
		}
		if err := d.name(at, bi, ai, low); err != nil {
			return err
		}
	}
	return nil
}

// name compares one name of a folder: bi and ai are its indices in the
// readings, one of them -1 if it is not there.
func (d *differ) name(at string, bi, ai int32, low lowerView) error {
	name := ""
	if ai >= 0 {
		name = d.After.nodes[ai].Name
	} else {
		name = d.Before.nodes[bi].Name
	}
	p := join(at, name)
	if d.Hide != nil && d.Hide(p) || d.Keep != nil && d.Keep.Prune(p) {
		return nil
	}
	if at == "" && d.Merged != nil {
		m := d.Merged(name)
		low.before, low.after = m, m
	}

	// What the merged tree showed before, and what the lower tree holds. A
	// file that the upper folder had before needs no look at the lower one.
	var base, under *node
	needed := ai < 0 && low.after || bi < 0 && low.before || ai >= 0 && d.After.nodes[ai].isDir() && (low.before || low.after)
	if needed {
		var err error
		if under, err = low.dir.stat(name, d.Ownerless); err != nil {
			return fmt.Errorf("lower tree: %q: %w", p, err)
		}
	}
	if bi >= 0 {
		base = &d.Before.nodes[bi]
	} else if low.before {
		base = under
	}
	if base != nil && base.nothing() {
		base = nil
	}

	if ai < 0 || d.After.nodes[ai].nothing() {
		// Overlayfs puts a whiteout where a lower name must not show. If it
		// shows all the same, the upper folder was changed by other hands.
		if ai < 0 && low.after && under != nil {
			return fmt.Errorf("upper folder: %q is gone without a whiteout", p)
		}
		if base != nil {
			d.list.remove(d.Keep, p)
		}
		return nil
	}

	now := &d.After.nodes[ai]
	if now.isDir() {
		return d.dir(p, bi, ai, base, under, low)
	}
	same, err := d.unchanged(p, bi, ai, base, low)
	if err != nil {
		return err
	}
	if d.Keep != nil && d.Keep.Skip(p) {
		return nil
	}
	if !same && now.linked() {
		d.groups[now.Ino] = true
	}
	if !same || now.linked() && d.groups[now.Ino] {
		d.list.add(d.Keep, p, ai)
	}
	return nil
}

// dir compares a name that is a folder of the upper folder now.
func (d *differ) dir(p string, bi, ai int32, base, under *node, low lowerView) error {
	now := &d.After.nodes[ai]
	lowerDir := under != nil && under.isDir()
	child := lowerView{
		before: low.before && lowerDir && base != nil && base.isDir() && !base.Opaque,
		after:  low.after && lowerDir && !now.Opaque,
	}
	if child.after && !child.before {
		return fmt.Errorf("upper folder: the lower folder shows through %q again", p)
	}
	if child.before {
		var err error
		if child.dir, err = low.dir.folder(now.Name); err != nil {
			return fmt.Errorf("lower tree: %q: %w", p, err)
		}
		defer child.dir.close()
	}
	switch {
	case base == nil || !base.isDir():
		defer d.list.enter(d.Keep, p, ai)()
		return d.folder(p, -1, ai, child)
	case child.before && !child.after:
		d.list.add(d.Keep, p, ai)
		d.list.opaque(d.Keep, p, ai)
		return d.folder(p, -1, ai, lowerView{})
	default:
		if !sameMeta(base, now) {
			d.list.add(d.Keep, p, ai)
		}
		return d.folder(p, bi, ai, child)
	}
}

// unchanged reports whether what is no folder is as the merged tree showed it before.
func (d *differ) unchanged(p string, bi, ai int32, base *node, low lowerView) (bool, error) {
	now := &d.After.nodes[ai]
	if base == nil || !sameMeta(base, now) {
		return false, nil
	}
	switch now.kind() {
	case unix.S_IFLNK:
		return base.Target == now.Target, nil
	case unix.S_IFCHR, unix.S_IFBLK:
		return base.Rdev == now.Rdev, nil
	case unix.S_IFREG:
	default:
		return true, nil
	}
	if base.Size != now.Size {
		return false, nil
	}
	if bi >= 0 {
		// A program can set mtime back, and tar does; nothing sets ctime.
		return base.Ino == now.Ino && base.CTime == now.CTime, nil
	}
	if same, ok := d.same[ai]; ok {
		return same, nil
	}
	same, err := d.sameContent(p, now, low.dir)
	d.same[ai] = same
	return same, err
}

// sameMeta compares what an entry tells of a thing beside its content.
func sameMeta(a, b *node) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		a.MTime == b.MTime && maps.Equal(a.Xattrs, b.Xattrs)
}

// sameContent compares a file that was copied up with the lower one.
func (d *differ) sameContent(p string, now *node, low *lowerDir) (bool, error) {
	if now.Size == 0 {
		return true, nil
	}
	b, err := low.open(now.Name)
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
