package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag/key"
)

// stateVersion is that of state.json and of the files beside it.
const stateVersion = 1

// State is what is applied to a root.
type State struct {
	Version  int     `json:"version"`
	Platform string  `json:"platform,omitempty"` // what the root was before clayer changed it first
	Layers   []Layer `json:"layers,omitempty"`
	Env      []Var   `json:"env,omitempty"` // of the composition; values may refer to the session

	// Order holds the keys of the composition's steps that have a snapshot, in
	// the order in which they were applied, as far as they were applied wholly:
	// what comes first in it is under what follows.
	Order []key.Key `json:"order,omitempty"`

	Log []Event `json:"log,omitempty"` // every apply, in order: undone backwards, it gives the root back
}

// Layer is a layer that is applied, with its steps in order.
type Layer struct {
	Name  string    `json:"name"`
	Steps []Applied `json:"steps"`
}

// Applied is a step that is applied.
type Applied struct {
	Key     key.Key       `json:"key"`
	Layer   string        `json:"-"`
	Text    string        `json:"text"` // the instruction, without values that may be secret
	Line    int           `json:"line"`
	Digest  digest.Digest `json:"digest,omitempty"` // of its snapshot; none for ENV
	DiffID  digest.Digest `json:"diffID,omitempty"`
	Size    int64         `json:"size,omitempty"` // bytes of its snapshot
	Entries int           `json:"entries,omitempty"`
	Bytes   int64         `json:"bytes,omitempty"`
	Took    time.Duration `json:"took,omitempty"`
	Record  key.Record    `json:"record,omitempty"`
	At      time.Time     `json:"at"`
}

// Var is a variable.
type Var struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Event is one apply of one step, whole or in part.
type Event struct {
	Seq int     `json:"seq"` // names its files in changes/ and originals/
	Key key.Key `json:"key"` // zero for an apply that was cut off by a kill
}

// State reads what is applied. It never waits. A root without state has the
// zero State.
func (r *Root) State() (*State, error) {
	path := filepath.Join(r.state, "state.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &State{}, nil
	}
	if err != nil {
		return nil, err
	}
	s := &State{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("%s is of version %d, and this clayer knows version %d: use the one that wrote it", path, s.Version, stateVersion)
	}
	return s, nil
}

func (s *State) nextSeq() int {
	if len(s.Log) == 0 {
		return 1
	}
	return s.Log[len(s.Log)-1].Seq + 1
}

// saveState replaces state.json: a reader, and the next command after a kill,
// sees the old or the new one.
func (r *Root) saveState(s *State) (err error) {
	s.Version = stateVersion
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(r.state, "state-")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil { // before the name: a name must never show half a file
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(r.state, "state.json")); err != nil {
		return err
	}
	return syncDir(r.state)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !isInvalid(err) {
		return err
	}
	return nil
}
