package rootfs

import (
	"bytes"
	"errors"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/record"
)

// undoneName is where databases are written from which records were undone.
const undoneName = "stage/undone"

// undoRecords undoes what an apply changed in a database that has changed since: its
// records alone. What the user changed of those stays, and is reported.
//
// with are the keys of records that stay since those in the partner of the database do.
func (u *undoing) undoRecords(f *inroot.Dir, c *record.Change, in bool, with []string) error {
	p := string(c.Path)
	db, known := databases.Known(c.Records.Database)
	here, meta, err := record.ReadDatabase(u.Sys, f.FD, path.Base(p))
	if err != nil {
		return err
	}
	if !known || meta == nil {
		u.preserve(c, "changed")
		return nil
	}
	original, below, err := u.original(c, in)
	if err != nil {
		return err
	}
	var merged []byte
	var conflicts []databases.Conflict
	undo, left := c.Records.Undo.Without(with)
	if u.force {
		merged, err = db.Force(here, original, undo)
	} else {
		merged, conflicts, err = db.Merge(here, original, undo)
	}
	for _, key := range left {
		conflicts = append(conflicts, databases.Conflict{Record: key})
	}
	if err != nil {
		u.preserve(c, "changed: "+err.Error())
		return nil
	}
	if len(conflicts) > 0 {
		u.preserveRecords(c, conflicts)
	}
	switch {
	case bytes.Equal(merged, here):
		return nil
	case !in && bytes.Equal(merged, original) && (below || len(merged) == 0):
		return u.plan(backward{Change: *c}, &record.Change{Kind: record.KindUndo, Path: c.Path, Out: path.Join("trash", u.trashName(c.N)), Records: c.Records})
	}
	name := u.trashName(c.N)
	if err := u.t.spending(func() error { return u.writeDatabase(name, merged, meta) }); err != nil {
		return inroot.Hard(err)
	}
	b := backward{Change: *c, in: true, fd: u.stageFD, name: name}
	return u.plan(b, &record.Change{Kind: record.KindUndo, Path: c.Path, In: path.Join(undoneName, name), Out: path.Join("trash", name), Records: c.Records, Now: meta})
}

// preserveRecords leaves records as they are.
func (u *undoing) preserveRecords(c *record.Change, conflicts []databases.Conflict) {
	left := *c
	undo := c.Records.Undo.Only(conflicts)
	left.Records = &record.Records{Database: c.Records.Database, Undo: undo}
	u.left = append(u.left, left)
	db, _ := databases.Known(c.Records.Database)
	for _, p := range []string{db.String(), db.Partner()} {
		u.t.records[p] = append(u.t.records[p], undo.Names()...)
	}
	u.res.preserve(string(c.Path), recordsChanged+strings.Join(undo.Names(), ", "))
}

// staying returns the keys of records of a database that stay since the user changed what
// its partner says of the same user, or group.
func (u *undoing) staying(c *record.Change) (keys []string, err error) {
	db, _ := databases.Known(c.Records.Database)
	partner, known := databases.Known(db.Partner())
	if !known || u.force {
		return nil, nil
	}
	for x, err := range u.t.r.state.ChangesBackward(u.was) {
		if err != nil {
			return nil, err
		}
		if x.Records == nil || x.Records.Database != partner.String() {
			continue
		}
		dir, err := u.GetReal(path.Dir(string(x.Path)))
		if err != nil {
			return nil, inroot.UnlessMissing(err)
		}
		here, _, err := record.ReadDatabase(u.Sys, dir.FD, path.Base(string(x.Path)))
		if err != nil || here == nil {
			return nil, err
		}
		conflicts, err := partner.Check(here, x.Records.Undo, nil)
		if err != nil {
			return nil, nil // it is no database any more
		}
		for _, conflict := range conflicts {
			keys = append(keys, conflict.Record)
		}
		break
	}
	_, left := c.Records.Undo.Without(keys)
	return left, nil
}

// noteRecords notes records that an apply left as the user has them.
func (u *undoing) noteRecords(c *record.Change) {
	if c.Records == nil || len(c.Records.Preserved) == 0 || u.force {
		return
	}
	u.t.records[c.Records.Database] = append(u.t.records[c.Records.Database], c.Records.Preserved...)
	u.res.preserve(string(c.Path), recordsChanged+strings.Join(c.Records.Preserved, ", "))
}

// original returns the database that an apply changed, and whether that is of the root
// below this one.
func (u *undoing) original(c *record.Change, in bool) (data []byte, below bool, err error) {
	if in {
		data, _, err = record.ReadDatabase(u.Sys, u.originalsFD, strconv.Itoa(c.N))
		return data, false, err
	}
	data, meta, err := u.t.r.below(string(c.Path))
	return data, meta != nil, err
}

// below returns the database at a path of the root that this one is layered over; nil
// where there is none.
func (r *Root) below(p string) ([]byte, *record.Meta, error) {
	if r.lower == "" {
		return nil, nil, nil
	}
	dirs, err := r.sys.OpenDirs(r.lower)
	if err != nil {
		return nil, nil, err
	}
	defer dirs.Close()
	dir, err := dirs.Get(path.Dir(p))
	if err != nil {
		return nil, nil, inroot.UnlessMissing(err)
	}
	return record.ReadDatabase(r.sys, dir.FD, path.Base(p))
}

// writeDatabase writes a database that is to take the place of one with the metadata.
func (u *undoing) writeDatabase(name string, data []byte, m *record.Meta) (err error) {
	if u.stageFD < 0 {
		if u.stageFD, err = u.t.r.state.Held().OpenPrivate(undoneName); err != nil {
			return err
		}
	}
	return record.WriteDatabase(u.Sys, u.stageFD, name, data, m)
}

// savedName is where databases are saved while a step runs on the root itself.
const savedName = "saved"

// auxCache is what ldconfig remembers of libraries. Most installs write it again.
const auxCache = "var/cache/ldconfig/aux-cache"

// SaveDatabases saves the databases of the root before a step runs on it, so that Adopt
// knows what the step changed in them, and undo gives it back; and the files at other paths
// that are there, so that undo gives them back too. What a full disk has no space for is not
// saved.
func (l *Lock) SaveDatabases(others ...string) error {
	r := l.root
	if err := r.state.Held().RemoveAll(savedName); err != nil {
		return err
	}
	tree, err := r.sys.OpenDirs(r.dir)
	if err != nil {
		return err
	}
	defer tree.Close()
	to, err := r.state.Held().OpenPrivate(savedName)
	if err != nil {
		return unlessFull(err)
	}
	defer unix.Close(to)
	paths := slices.Concat(databases.Paths(), others, []string{auxCache})
	for _, dir := range databases.Dirs {
		list, err := namesIn(tree, dir)
		if err != nil {
			return err
		}
		paths = append(paths, list...)
	}
	for _, p := range paths {
		dir, err := tree.Get(path.Dir(p))
		if err != nil {
			if inroot.UnlessMissing(err) == nil {
				continue
			}
			return err
		}
		data, m, err := record.ReadDatabase(r.sys, dir.FD, path.Base(p))
		if m != nil && err == nil {
			err = record.WriteDatabase(r.sys, to, savedAs(p), data, m)
		}
		if err != nil {
			_ = r.sys.Unlinkat(to, savedAs(p), 0)
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENAMETOOLONG) {
				continue
			}
			return unlessFull(err)
		}
	}
	return nil
}

// OpenSaved opens what SaveDatabases saved of a file.
func (l *Lock) OpenSaved(p string) (*os.File, error) {
	return l.root.state.Held().OpenFile(path.Join(savedName, savedAs(p)), os.O_RDONLY, 0)
}

// namesIn returns the paths of what is in a directory.
func namesIn(tree *inroot.Dirs, name string) (paths []string, err error) {
	dir, err := tree.Get(name)
	if err != nil {
		return nil, inroot.UnlessMissing(err)
	}
	fd, err := unix.Openat(dir.FD, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	list, err := f.Readdirnames(-1)
	for _, base := range list {
		if p := path.Join(name, base); !slices.Contains(databases.Paths(), p) {
			paths = append(paths, p)
		}
	}
	return paths, err
}

func unlessFull(err error) error {
	if inroot.IsFull(err) {
		return nil
	}
	return err
}

// savedAs is the name of the database at a path in the directory of those that are saved.
func savedAs(p string) string { return url.PathEscape(p) }

// An adopting takes the files that were saved as originals of an apply.
type adopting struct {
	t           *transaction
	seq         int
	saved       int // the directory of those that were saved; -1: there is none
	originalsFD int // -1 before the first
	other       func(path string, dir int, name string) (bool, error)
}

func (t *transaction) adopting(seq int, other func(string, int, string) (bool, error)) (*adopting, error) {
	a := &adopting{t: t, seq: seq, saved: -1, originalsFD: -1, other: other}
	is, err := t.r.state.Exists(savedName)
	if err == nil && is {
		a.saved, err = t.r.state.Held().OpenFD(savedName)
	}
	return a, err
}

func (a *adopting) close() {
	for _, fd := range []int{a.saved, a.originalsFD} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// original completes the record of a change by what stood there, as far as that is known.
func (a *adopting) original(tree *inroot.Dirs, c *record.Change) error {
	err := a.fromSaved(tree, c)
	if err != nil || !c.Lost || a.other == nil {
		return err
	}
	if err := a.open(); err != nil {
		return err
	}
	return a.t.spending(func() error {
		known, err := a.other(string(c.Path), a.originalsFD, strconv.Itoa(c.N))
		c.Lost = !known
		return unlessFull(err)
	})
}

// open makes the directory of the originals.
func (a *adopting) open() error {
	if a.originalsFD >= 0 {
		return nil
	}
	return a.t.spending(func() (err error) {
		a.originalsFD, err = a.t.r.state.Held().OpenPrivate(record.OriginalsName(a.seq))
		return err
	})
}

// fromSaved is original by what SaveDatabases has saved.
func (a *adopting) fromSaved(tree *inroot.Dirs, c *record.Change) error {
	p := string(c.Path)
	db, known := databases.Known(p)
	if a.saved < 0 || !known && !c.Lost || c.Kind != record.KindFile && c.Kind != record.KindGone {
		return nil
	}
	before, meta, err := record.ReadDatabase(a.t.r.sys, a.saved, savedAs(p))
	if err != nil {
		return err
	}
	if meta == nil && c.Lost {
		return nil // it was none, or could not be read
	}
	if known && c.Kind == record.KindFile {
		dir, err := tree.Get(path.Dir(p))
		if err != nil {
			return err
		}
		after, now, err := record.ReadDatabase(a.t.r.sys, dir.FD, path.Base(p))
		if err != nil || now == nil {
			return err
		}
		c.Now.Size = now.Size // of which the snapshot has no secrets
		c.Records = &record.Records{Database: p}
		if c.Records.Undo, err = db.Diff(after, before); err != nil {
			return err
		}
	}
	if meta == nil {
		return nil
	}
	if err := a.open(); err != nil {
		return err
	}
	// By a second link: should the record be rolled back, it is saved still.
	err = a.t.spending(func() error { return a.t.r.sys.Linkat(a.saved, savedAs(p), a.originalsFD, strconv.Itoa(c.N)) })
	if inroot.NoSecondLink(err) {
		err = a.t.spending(func() error { return record.WriteDatabase(a.t.r.sys, a.originalsFD, strconv.Itoa(c.N), before, meta) })
	}
	if err != nil {
		return inroot.Hard(err)
	}
	c.Lost = false
	return nil
}
