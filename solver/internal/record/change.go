package record

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/clayer/clayer/solver/internal/databases"
)

// A Change is what an apply does to one path, with what undoing it needs. Its
// line is synced before it is done, since the line alone says after a kill, or
// a loss of power, where what was moved belongs. Whether it was done is seen by
// what it moves: what comes waits as stage/<seq>/<N>, and what stood there is
// originals/<seq>/<N> afterwards, if anything did. What has With comes with another.
type Change struct {
	Seq       int    `json:"seq,omitempty"`  // the apply
	Path      []byte `json:"path,omitempty"` // relative to the root, without links on the way; bytes, since names need not be UTF-8
	Kind      Kind   `json:"kind,omitempty"` // what stands there now, or what the line says
	N         int    `json:"n,omitempty"`    // its number in the apply, from 1
	Was       *Meta  `json:"was,omitempty"`  // of a directory that was there, and stays: its metadata before
	Now       *Meta  `json:"now,omitempty"`  // as applied; nil for KindGone
	Preserved bool   `json:"kept,omitempty"` // nothing was done: what stands there is the user's
	Lost      bool   `json:"lost,omitempty"` // what stood there was not saved: the step was adopted

	// Records says which records of a database were changed, where the rest of the file is
	// the machine's: nil for any other file.
	Records *Records `json:"records,omitempty"`

	// A directory that nothing stood at comes with all that is in it, by one rename:
	// Whole is set on its line, and With, its N, on those of what comes with it.
	Whole bool   `json:"whole,omitempty"`
	With  int    `json:"with,omitempty"`
	From  []byte `json:"from,omitempty"` // where it waits in stage/<seq>, if not under its number

	// Of a line that announces that a change is undone: where what comes back
	// is now, and where what goes is moved, in the state directory.
	In  string `json:"in,omitempty"`
	Out string `json:"out,omitempty"`

	Left   bool `json:"left,omitempty"`   // nothing of this transaction: what an undo left, or a step did that was adopted
	Again  int  `json:"again,omitempty"`  // takes the place of the lines before with this N: the root was not as expected
	Beside bool `json:"beside,omitempty"` // what comes waits beside Path, as TempName says: the directory is on another file system

	End int64 `json:"-"` // of a line that ReadBackward read: where it ends in the log, in bytes
}

// Records is what an apply changed in a database.
type Records struct {
	Database string `json:"of"` // its path, by which it is known: that of the change is without links

	Undo databases.Changes `json:"undo,omitzero"` // undoes it: leads to what the file was before

	// Preserved are the keys of records that the step would have changed, and that stay as
	// the user has them.
	Preserved []string `json:"kept,omitempty"`
}

// A Kind is what stands at a path after a change, or what a line says that is no
// change of its own. Its text is what a log has.
type Kind string

// What stands at a path.
const (
	KindFile    Kind = "file"
	KindDir     Kind = "dir"
	KindSymlink Kind = "symlink"
	KindLink    Kind = "link" // a hard link to another path
	KindDevice  Kind = "device"
	KindFifo    Kind = "fifo"
	KindSocket  Kind = "socket" // no entry makes one
	KindGone    Kind = "gone"   // nothing: it was deleted
)

// Lines that are no changes of their own.
const (
	KindTime Kind = "time" // Was is the metadata of a directory before the first change of what is in it
	KindTemp Kind = "temp" // a file is made at Path, to be renamed
	KindUndo Kind = "undo" // a change is undone: In and Out
)

// IsChange reports whether a line of this kind is a change of a path.
func (k Kind) IsChange() bool { return k != KindTime && k != KindTemp && k != KindUndo }

// Meta is the metadata of a file, and what identifies its content.
type Meta struct {
	Mode    uint32            `json:"mode"` // permission bits, setuid, setgid and sticky
	UID     int               `json:"uid"`
	GID     int               `json:"gid"`
	Size    int64             `json:"size,omitempty"`
	ModTime time.Time         `json:"mtime"`
	Target  []byte            `json:"target,omitempty"` // of a symlink
	Rdev    uint64            `json:"rdev,omitempty"`   // of a device
	Type    Kind              `json:"type,omitempty"`   // of a hard link: what it is a link to
	Sum     *uint32           `json:"sum,omitempty"`    // CRC-32C of a file's content; nil: not known
	Xattrs  map[string][]byte `json:"xattrs,omitempty"`
}

// TempName is the name of a file that is copied beside its place, on another file
// system than the state.
func TempName(seq, n int) string { return fmt.Sprintf("%s%d-%d", TempPrefix, seq, n) }

// TempPrefix begins the names of what is being made beside where it goes.
const TempPrefix = ".clayer-new-"

// TrashName is the name of what an undo takes away on another file system than the
// state, beside where it stood.
func TrashName(tx, seq, n int) string { return fmt.Sprintf("%s%d-%d-%d", TrashPrefix, tx, seq, n) }

// TrashPrefix begins the names of what waits beside its place to be removed.
const TrashPrefix = ".clayer-old-"

// What In and Out of a Change can be beside a path in the state directory.
const (
	InMade   = "mkdir"   // a new directory
	InBeside = "beside:" // a name in the same directory
)

// Changes yields what an apply changed, in its order.
func (d Dir) Changes(ev Event) iter.Seq2[Change, error] { return d.changes(ev, ReadLog) }

// ChangesOf is Changes of the paths that are wanted. It is many times as fast where few are.
func (d Dir) ChangesOf(ev Event, wanted func(path string) bool) iter.Seq2[Change, error] {
	all := d.changes(ev, func(d Dir, name string, from, to int64, verified *int64) iter.Seq2[Change, error] {
		return readForward(d, name, from, to, verified, func(file string, text []byte) (Change, error) {
			if c, err := parseHead(file, text); err != nil || !wanted(string(c.Path)) {
				return Change{}, err // no change, which nobody asks for
			}
			return parseChange(file, text)
		})
	})
	return func(yield func(Change, error) bool) {
		for c, err := range all {
			if (err != nil || wanted(string(c.Path))) && !yield(c, err) {
				return
			}
		}
	}
}

// Paths returns the paths of Changes.
func (d Dir) Paths(ev Event) (paths []string, err error) {
	for c, err := range d.changes(ev, readHeads) {
		if err != nil {
			return nil, err
		}
		paths = append(paths, string(c.Path))
	}
	return paths, nil
}

// ChangesBackward is Changes from the last to the first.
func (d Dir) ChangesBackward(ev Event) iter.Seq2[Change, error] { return d.changes(ev, ReadBackward) }

type reader func(d Dir, name string, from, to int64, verified *int64) iter.Seq2[Change, error]

func (d Dir) changes(ev Event, read reader) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		verified := int64(0)
		for c, err := range read(d, LogName(ev.Tx), ev.From, ev.To, &verified) {
			if err == nil && !ev.did(&c) {
				continue
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
		if verified < ev.To-ev.From {
			yield(Change{}, fmt.Errorf("%s is damaged after byte %d: what was changed there is not known", d.Path(LogName(ev.Tx)), ev.From+verified))
		}
	}
}

// did reports whether a line is a change that was done.
func (ev *Event) did(c *Change) bool {
	switch {
	case !c.Kind.IsChange() || c.Seq != ev.Seq:
		return false
	case has(ev.Not, c.N):
		return false
	}
	return c.Left || c.Again == ev.Again[c.N]
}

func has(sorted []int, n int) bool {
	_, ok := slices.BinarySearch(sorted, n)
	return ok
}

// MayHaveOriginal reports whether a change may have replaced or deleted something that
// was saved.
func (c *Change) MayHaveOriginal() bool { return c.N != 0 && !c.Lost && !c.Preserved }

// ComparePaths orders paths so that a directory is followed by all below it.
func ComparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// ProfilePath is where login shells find the environment: State.Profile.
const ProfilePath = "etc/profile.d/clayer.sh"
