// Package durability says what of a change outlives a loss of power, decided for each
// file system: a machine that ends with its session has nothing to lose by one.
package durability

import (
	"os"
	"path/filepath"
)

// A Mode is when what a command has done outlives a loss of power. The stricter of two
// is the lesser.
type Mode uint8

// The modes.
const (
	Durable   Mode = iota // each part before what depends on it is done
	Ephemeral             // all of it when the command has ended, and none of it is sure before
	NoSync                // whenever the system writes it to the disk
)

// String returns the word for a mode that users see.
func (m Mode) String() string { return [...]string{"durable", "ephemeral", "no-sync"}[m] }

// A Setting says who decides. The zero value leaves it to the file system.
type Setting uint8

// The settings.
const (
	Auto Setting = iota
	Always
	AtEnd
	Never
)

// A Policy decides for directories. The zero Policy knows of no sign that the machine
// ends with its session: all but what is in memory is durable.
type Policy struct {
	Setting Setting
	Sign    string // by which the machine ends with its session; "" for none
}

// Of returns the mode for a directory, which need not be there yet, and why.
func (p Policy) Of(dir string) (m Mode, why string) {
	switch p.Setting {
	case Always:
		return Durable, "it was asked for"
	case AtEnd:
		return Ephemeral, "it was asked for"
	case Never:
		return NoSync, "it was asked for"
	}
	dir = existing(dir)
	memory, overlay := kindOf(dir)
	sign := p.Sign
	if _, over := kindOf("/"); sign == "" && over && overlay {
		sign = "the overlay at /"
	}
	switch {
	case memory:
		return Ephemeral, "it is in memory"
	case sign == "":
		return Durable, "no sign that this machine ends with its session"
	case !sameFileSystem(dir, "/"):
		return Durable, "on another file system than /, which may outlive this machine"
	}
	return Ephemeral, "this machine ends with its session, by " + sign
}

// existing returns the nearest directory at or above a path that is there.
func existing(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return "/"
	}
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// A Place is when changes of some files outlive a loss of power.
type Place struct {
	Of   string `json:"of"` // "root", "state"
	Mode Mode   `json:"mode"`
	Why  string `json:"why"`
}

// String returns the mode and the reason in words.
func (p Place) String() string { return p.Mode.String() + ": " + p.Why }

// MarshalText implements encoding.TextMarshaler.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// Places returns the places of a root and of its state, which is no less strict: it says what
// is done to the root.
func (p Policy) Places(root, state string) (of, ofState Place) {
	of.Of, ofState.Of = "root", "state"
	of.Mode, of.Why = p.Of(root)
	ofState.Mode, ofState.Why = p.Of(state)
	if of.Mode < ofState.Mode {
		ofState.Mode, ofState.Why = of.Mode, of.Why
	}
	return of, ofState
}
