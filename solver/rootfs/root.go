// Package rootfs is the only writer of a root: it applies streams of entries,
// keeps the record of what is applied, and holds the root's lock.
//
// What it keeps, in the state folder (var/lib/clayer of the root, or
// $XDG_STATE_HOME/clayer for a / that may not be written):
//
//	state.json            what is applied: State
//	log/<tx>              what a transaction was about to do, a Change a line:
//	                      its journal first, the record of its applies then
//	originals/<seq>/<n>   what an apply replaced or deleted, moved here
//	stage/<seq>/<n>       what an apply has made and not yet put where it belongs
//	trash/<seq>/<n>       what an undo took away, until it is committed
//	work/                 upper folders and other scratch of a solve
//	lock                  held by the one solve that is at work
//
// docs/root.md says how they give back the old state, or the new one, after
// whatever happened.
package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
)

// Options are how to open a root. The zero value is the default.
type Options struct {
	StateDir string // where state is kept; "" means as the package says
}

// Root is a root file system with its state.
type Root struct {
	dir   string
	state string
}

// Open returns the root in the folder dir, which need not be there yet.
// Nothing is made or written.
func Open(dir string, opt Options) (*Root, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("root %s: not a folder", dir)
	}
	r := &Root{dir: dir, state: opt.StateDir}
	if r.state == "" {
		if r.state, err = stateDir(dir); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// stateDir decides where the state of dir is: in the root, or, for a / that may
// not be written, in the user's home.
func stateDir(dir string) (string, error) {
	inRoot, err := Inside(dir, "var/lib/clayer")
	if err != nil {
		return "", fmt.Errorf("where to keep state? %w", err)
	}
	if dir != "/" || writable(inRoot) {
		return inRoot, nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("where to keep state? %s is not writable, and %w", inRoot, err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "clayer"), nil
}

// Inside returns where a path of a root is, following links as a process
// chrooted to dir does: the state of a root with an absolute link at /var is in
// that root, not in the machine's /var.
func Inside(dir, p string) (string, error) {
	at := "/"
	links := 0
	for rest := p; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		next := filepath.Join(at, part) // never above /
		target, err := os.Readlink(filepath.Join(dir, next))
		if err != nil {
			at = next // no link, or nothing
			continue
		}
		if links++; links > 40 {
			return "", fmt.Errorf("%s: too many links", filepath.Join(dir, p))
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = target + "/" + rest
	}
	return filepath.Join(dir, at), nil
}

// writable reports whether the folder at path, or the nearest one above that is
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

// Dir returns the root's folder.
func (r *Root) Dir() string { return r.dir }

// StateDir returns the folder of the state.
func (r *Root) StateDir() string { return r.state }

// WorkDir makes and returns the folder for scratch, on the file system of the
// state. What a killed solve left there goes with the next Lock.
func (r *Root) WorkDir() (string, error) {
	dir := filepath.Join(r.state, "work")
	return dir, os.MkdirAll(dir, 0o755)
}

// Result is what an apply did.
type Result struct {
	Entries int
	Bytes   int64 // of file content

	// Problems are the entries that could not be made, while the rest was: an
	// immutable file, a read-only file system or another mount underneath.
	Problems []Problem

	// Kept are the paths that the step would have changed, and that stay as the
	// user has them.
	Kept []string

	// Unprivileged counts owners, attributes and device nodes that a user
	// without the privilege cannot set or make: as tar does for a user, they
	// are left out without a word.
	Unprivileged int
}

// A Problem is an entry that could not be made.
type Problem struct {
	Path string // relative to the root
	Err  error
}

// LayerKeys names a layer of a composition with its steps in order, and the
// environment of the composition up to it.
type LayerKeys struct {
	Name  string
	Steps []key.Key
	Env   []Var
}

// Undone is what an undo did, and what it could not do.
type Undone struct {
	Steps    []key.Key // undone, the last applied first
	Files    int       // changes that were taken back
	Kept     []Kept    // what stays as it is, since the user changed it
	Lost     []string  // what can't come back, since a step that ran in place changed it
	Problems []Problem // what could not be changed
}

// Kept is a path that an undo leaves as the user has it.
type Kept struct {
	Path string `json:"path"` // relative to the root
	Why  string `json:"why"`
}

// unsafe is an error about an entry that no honest stream has.
func unsafe(path, reason string) error { return &snapshot.UnsafeError{Path: path, Reason: reason} }
