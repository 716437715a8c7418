package rootfs

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

// Where changes are not synced one by one, a file of the state directory says so until all
// of them are. It names the run of the kernel: with another one, or nothing, in it, what
// was written shortly before that run ended may be missing.
const unsyncedName = "unsynced"

// An unsynced is the content of that file.
type unsynced struct {
	Boot string `json:"boot"` // durability.Boot
	Tx   int    `json:"tx"`   // of the last transaction that was on the disk before
}

// unsynced reads the file; nil where there is none.
func (r *Root) unsynced() (*unsynced, error) {
	data, err := r.state.ReadFile(unsyncedName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var u unsynced
	if json.Unmarshal(data, &u) != nil {
		u = unsynced{} // the file itself is what was lost
	}
	return &u, nil
}

// mayLack reports whether changes may be missing that were made.
func (u *unsynced) mayLack() bool { return u != nil && u.Boot != durability.Boot() }

// syncsLater reports whether something of a transaction is not synced before the next.
func (r *Root) syncsLater() bool {
	return max(r.sys.Durability, r.state.Sys().Durability) != durability.Durable
}

// A Durability is when the changes on a file system outlive a loss of power.
type Durability struct {
	Mode durability.Mode
	Why  string
}

// String returns both in words.
func (d Durability) String() string { return d.Mode.String() + ": " + d.Why }

// Durability returns that of the root's files, and that of the state, which is no less
// strict: it says what is done to the root.
func (r *Root) Durability() (root, state Durability) { return r.modes(r.state.String()) }

func (r *Root) modes(stateDir string) (root, state Durability) {
	root.Mode, root.Why = r.policy.Of(r.dir)
	state.Mode, state.Why = r.policy.Of(stateDir)
	if root.Mode < state.Mode {
		state = root
	}
	return root, state
}

// Lost is what a loss of power took of the changes that clayer had made.
type Lost struct {
	CutOff bool     // a command was cut off, and some of what it did may not be known
	Files  int      // that applied steps own and that are not whole
	Bytes  int64    // of logs: what was done there is not known, and stays
	Paths  []string // that could not be rolled back
	Saved  string   // where files are that were moved aside, and that no log claims; "" for none
}

func (l *Lock) lost() *Lost {
	if l.Lost == nil {
		l.Lost = new(Lost)
	}
	return l.Lost
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

// since reports whether an apply may not have been on the disk.
func (u *unsynced) since(ev *record.Event) bool { return ev.Tx > u.Tx }
