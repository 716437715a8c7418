// Package unsynced knows whether all that was done to a root is on the disk, where that is
// not so at once, and finds what a loss of power has taken of it.
package unsynced

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver/internal/record"
)

// Name is a file of the state directory that says that not all may be on the disk.
const Name = "unsynced"

// A Mark is the content of that file. It names the run of the kernel: with another one, or
// nothing, in it, what was written shortly before that run ended may be missing.
type Mark struct {
	Boot string `json:"boot"` // durability.Boot
	Tx   int    `json:"tx"`   // of the last transaction that was on the disk before
}

// Read reads the mark; nil where there is none.
func Read(d record.Dir) (*Mark, error) {
	data, err := d.ReadFile(Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m Mark
	if json.Unmarshal(data, &m) != nil {
		m = Mark{} // the file itself is what was lost
	}
	return &m, nil
}

// Make makes the mark, with the last transaction that is on the disk.
func Make(d record.Dir, tx int) (*Mark, error) {
	m := Mark{Boot: durability.Boot(), Tx: tx}
	data, err := json.Marshal(m)
	if err == nil {
		err = d.ReplaceFile(Name, data)
	}
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// MayLack reports whether changes may be missing that were made.
func (m *Mark) MayLack() bool { return m != nil && m.Boot != durability.Boot() }

// since reports whether an apply may not have been on the disk.
func (m *Mark) since(ev *record.Event) bool { return ev.Tx > m.Tx }

// Lost is what a loss of power took of the changes that clayer had made.
type Lost struct {
	CutOff bool     // a command was cut off, and some of what it did may not be known
	Files  int      // that applied steps own and that are not whole
	Bytes  int64    // of logs: what was done there is not known, and stays
	Paths  []string // that could not be rolled back
	Saved  string   // where files are that were moved aside, and that no log claims; "" for none
}

// String says what is lost, and what becomes of it.
func (l *Lost) String() string {
	text := "this machine stopped before all that clayer had changed was on the disk:"
	var parts []string
	if l.CutOff {
		parts = append(parts, "a command was cut off, and of what it did last something may still be there (clayer diff lists it)")
	}
	if l.Files > 0 {
		parts = append(parts, fmt.Sprintf("%s of applied steps lost content, and the next solve applies these steps again", sizes.Count(l.Files, "file")))
	}
	if l.Bytes > 0 {
		parts = append(parts, "a part of the log is gone, and what it said stays in the root")
	}
	if n := len(l.Paths); n > 0 {
		parts = append(parts, fmt.Sprintf("%s could not be rolled back, such as %s", sizes.Count(n, "change"), l.Paths[0]))
	}
	if l.Saved != "" {
		parts = append(parts, "files of the root that had been moved aside are in "+l.Saved)
	}
	return text + " " + strings.Join(parts, "; ")
}
