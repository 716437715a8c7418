// Package rootfs is the space of a root, and through it alone a root is changed: it
// holds the lock, applies and undoes in transactions, and rolls back one that was
// cut off. How a stream is applied is in unpack, the record of it in record.
//
// What is stored, in the state directory (var/lib/clayer of the root, or
// $XDG_STATE_HOME/clayer for a / that may not be written):
//
//	state.json            what is applied: record.State
//	log/<tx>              what a transaction was about to do, a record.Change
//	                      a line: its journal first, the record of its applies then
//	originals/<seq>/<n>   what an apply replaced or deleted, moved here
//	stage/<seq>/<n>       what an apply has made and not yet put where it belongs
//	trash/<seq>-<n>       what an undo took away, until it is committed
//	reserve/<n>           what undo and rollback use on a full disk
//	scratch.json          names of temporary files in the root itself, while steps run in place
//	made                  the directories made for the state, until state.json has them
//	unsynced              says that what was done may not be on the disk yet
//	lost/<time>           what was moved aside before a loss of power, and no log claims
//	work/                 upper directories and other scratch of a solve
//	lock                  held by the one solve that is at work
//
// docs/root.md says how they give back the old state, or the new one, after
// whatever happened.
package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/durability"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/names"
	"github.com/clayer/clayer/solver/internal/record"
	"github.com/clayer/clayer/solver/internal/unpack"
)

// Options are how to open a root. The zero value is the default.
type Options struct {
	StateDir string // where the state is; "" means as the package says
	Lower    string // the root that this one is layered over; "" for none

	// Durability decides when changes outlive a loss of power.
	Durability durability.Policy

	sys inroot.Sys // of tests

	// RemoveAll removes a directory with what a RUN in a user namespace left in
	// it: directories that this user may not enter, and files of other users.
	// It is asked where this process may not do it itself; nil is for none to ask.
	RemoveAll func(dir string) error
}

// Root is a root file system with its state.
type Root struct {
	dir   string
	state record.Dir
	lower string // the root that it is layered over, if any
	sys   inroot.Sys

	removeAll func(dir string) error // of Options
	policy    durability.Policy

	inside bool // the state is at stateInRoot
}

// IsLayered reports whether the root is layered over another one.
func (r *Root) IsLayered() bool { return r.lower != "" }

// Dirs returns the directories whose files the root shows, the upper one first.
func (r *Root) Dirs() []string {
	if r.lower != "" {
		return []string{r.dir, r.lower}
	}
	return []string{r.dir}
}

// Names returns the names in the root as it is now.
func (r *Root) Names() *names.View { return names.New(r.dir, r.lower) }

// stateInRoot is where a root has its state.
const stateInRoot = "var/lib/clayer"

// Open returns the root in the directory dir, which need not be there yet.
// Nothing is made or written.
func Open(dir string, opt Options) (*Root, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("root %s: not a directory", dir)
	}
	state, inside := opt.StateDir, false
	if state == "" {
		if state, inside, err = stateDir(dir); err != nil {
			return nil, err
		}
	}
	r := &Root{dir: dir, sys: opt.sys, inside: inside, lower: opt.Lower, removeAll: opt.RemoveAll, policy: opt.Durability}
	of, ofState := opt.Durability.Places(dir, state)
	r.sys.Durability = ofState.Mode
	r.state = record.DirIn(dir, state).With(r.sys)
	r.sys.Durability = of.Mode
	return r, nil
}

// stateDir decides where the state of dir is: in the root, or, for a / that may
// not be written, in the user's home.
func stateDir(dir string) (path string, inside bool, err error) {
	above, err := inroot.Inside(dir, filepath.Dir(stateInRoot))
	if err != nil {
		return "", false, fmt.Errorf("cannot locate the state directory: %w", err)
	}
	inRoot := filepath.Join(above, filepath.Base(stateInRoot)) // which is no link
	if dir != "/" || writable(inRoot) {
		return inRoot, true, nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", false, fmt.Errorf("cannot locate the state directory: %s is not writable, and %w", inRoot, err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "clayer"), false, nil
}

// writable reports whether the directory at path, or the nearest one above that is
// there, may be written.
func writable(path string) bool {
	for {
		if _, err := os.Stat(path); err == nil {
			return mayWrite(path)
		}
		if path == filepath.Dir(path) {
			return false
		}
		path = filepath.Dir(path)
	}
}

// Dir returns the root's directory.
func (r *Root) Dir() string { return r.dir }

// StateDir returns the directory of the state.
func (r *Root) StateDir() record.Dir { return r.state }

// Durability returns when changes outlive a loss of power, those of the root first, and
// those of its state if that is another.
func (r *Root) Durability() []durability.Place {
	of, ofState := r.policy.Places(r.dir, r.state.String())
	if of.String() == ofState.String() {
		return []durability.Place{of}
	}
	return []durability.Place{of, ofState}
}

// State reads what is applied: record.Dir.State.
func (r *Root) State() (*record.State, error) { return r.state.State() }

// WorkDir makes and returns the directory for scratch, on the file system of the
// state. What a killed solve left there goes with the next Lock.
func (r *Root) WorkDir() (string, error) {
	return r.state.Path("work"), r.state.MkdirAll("work", 0o755)
}

// ErrRoot says that a root could not be changed, or was changed in part. Those who carry
// out a solve wrap the errors of this package in it.
var ErrRoot = errors.New("the root could not be changed")

// Undone is what an undo did, and what it could not do.
type Undone struct {
	Steps     []key.Key        // undone, the last applied first
	Files     int              // changes that were undone
	Preserved []Preserved      // what stays as it is, since the user changed it
	Lost      []string         // what can't come back, since a step that ran in place changed it
	Problems  []unpack.Problem // what could not be changed
}

// preserve notes that a path stays: once, but for records of a database.
func (u *Undone) preserve(p, why string) {
	is := func(x Preserved) bool {
		return x.Path == p && (x.Why == why || !strings.HasPrefix(why, recordsChanged))
	}
	if !slices.ContainsFunc(u.Preserved, is) {
		u.Preserved = append(u.Preserved, Preserved{p, why})
	}
}

const recordsChanged = "records changed: "

// RunningName is a file of the state directory that is there while a RUN in place
// is under way, and until what it did is recorded.
const RunningName = "running.json"

// Preserved is a path that an undo leaves as the user has it.
type Preserved struct {
	Path string `json:"path"` // relative to the root
	Why  string `json:"why"`
}

// NotEmpty is why an undo leaves a directory.
const NotEmpty = "holds files that are not clayer's, or were changed"
