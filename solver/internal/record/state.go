// Package record is what is known of a root as data: what is applied to it, and
// the log of what was done for that, by which it can be rolled back. It writes and
// reads both, and changes nothing else.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/snapshot/frames"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/inroot"
)

// stateVersion is that of state.json and of the files beside it.
const stateVersion = 2

// State is what is applied to a root.
type State struct {
	Version  int     `json:"version"`
	Tx       int     `json:"tx"`                 // the number of the last transaction that was committed
	Seq      int     `json:"seq"`                // the number of the last apply
	Platform string  `json:"platform,omitempty"` // what the root was before clayer changed it first
	Layers   []Layer `json:"layers,omitempty"`   // in composition order
	Env      []Var   `json:"env,omitempty"`      // of the composition; values may refer to the session

	// Log has the applies in their order, one for each step that has a snapshot:
	// undone from the last to the first, they give the root back.
	Log []Event `json:"log,omitempty"`

	// Preserved are applies that were undone but for some files, which the user had
	// changed or which could not be: their changes are these files alone.
	Preserved []Event `json:"kept,omitempty"`

	// Profile is the apply of the file at ProfilePath, for which login shells have
	// the environment: above all of Log, and of no step. Its Tx is 0 while it is
	// wanted and the file is not there; nil: it is not wanted.
	Profile *Event `json:"profile,omitempty"`

	// Lost are paths of the root, at most MaxLost of them, that steps which ran there in
	// place have changed, and that stayed so when these were undone: what a RUN finds is no
	// longer what its chain describes.
	Lost []string `json:"lost,omitempty"`

	// Trash is what the last undo took away on other mounts below the root, beside
	// where it stood: it is removed after the commit.
	Trash []Trash `json:"trash,omitempty"`

	size int64 // of state.json

	// Made are the directories above the state directory that were made for it,
	// relative to the root, the uppermost first.
	Made []string `json:"made,omitempty"`
}

// MaxLost bounds State.Lost: that there are some says what counts.
const MaxLost = 100

// Trash is a file, or a directory, that is to be removed.
type Trash struct {
	Path []byte    `json:"path"`
	Time time.Time `json:"time"` // of the directory that it is in, which that keeps
}

// Layer is a layer that is applied, with its steps in order.
type Layer struct {
	Name  string    `json:"name"`
	Steps []Applied `json:"steps"`
	Env   []Var     `json:"env,omitempty"` // of the composition up to this layer
}

// Applied is a step that is applied.
type Applied struct {
	Encoding int `json:"encoding,omitempty"` // of its key, as key.Encoding; 0 for the first one

	Key     key.Key         `json:"key"`
	Layer   string          `json:"-"`
	Text    string          `json:"text"` // the instruction, without values that may be secret
	Line    int             `json:"line"`
	Digest  digest.Digest   `json:"digest,omitempty"` // of its snapshot; none for ENV
	DiffID  digest.Digest   `json:"diffID,omitempty"`
	Size    int64           `json:"size,omitempty"`   // bytes of its snapshot
	CRC32C  uint32          `json:"crc32c,omitempty"` // of its snapshot; 0: not known
	Entries int             `json:"entries,omitempty"`
	Bytes   int64           `json:"bytes,omitempty"`
	Took    time.Duration   `json:"took,omitempty"`
	Record  key.Record      `json:"record,omitempty"`
	At      time.Time       `json:"at"`
	LeftOut bool            `json:"leftOut,omitempty"` // its snapshot is in no store: see cache.LeftOut
	Needs   []snapshot.Need `json:"needs,omitzero"`    // as cache.Descriptor has them
	Differs bool            `json:"differs,omitempty"` // it found something else than its chain describes: its snapshot is in no store
	On      digest.Digest   `json:"on,omitempty"`      // as cache.Descriptor has it
	Frames  frames.List     `json:"frames,omitempty"`  // as cache.Descriptor has it
	Cutoff  key.Key         `json:"cutoff,omitzero"`   // as cache.Descriptor has it
	Second  bool            `json:"second,omitempty"`  // Cutoff is the key that stores have its snapshot by
	Scratch bool            `json:"scratch,omitempty"` // its snapshot holds some, which the root has not; Apply and Adopt set it

	// AllForRoot says that nothing of the snapshot is scratch: a SNAPSHOT captured it.
	AllForRoot bool `json:"-"`

	// Before returns to Adopt what there was at a path of the root before the step:
	// whether something existed, and of a directory its entry. nil: nothing is
	// known, and so nothing that the step made is taken for new.
	Before func(path string) (dir *snapshot.Entry, existed bool) `json:"-"`

	// Original, if not nil, writes to Adopt what stood at a path of the root before the
	// step, under a name in an open directory. It reports whether it knows that.
	Original func(path string, dir int, name string) (known bool, err error) `json:"-"`

	// Placement says what Apply must not replace.
	Placement Placement `json:"-"`

	// Verified, if not nil, is closed when it is sure that the snapshot which is read
	// is the step's: Apply does nothing to the root before. That it never will be is
	// for the context to say.
	Verified <-chan struct{} `json:"-"`
}

// A Placement says what the files of a step must not replace. The zero value
// lets them replace anything, as for what a RUN did.
type Placement struct {
	// ProtectDirs refuses a file, or a link, where a directory is.
	ProtectDirs bool

	// File is a path, relative to the root, at which a directory, and a link to
	// one, stays in any case; "" for none.
	File string

	// Merge says that the step is a RUN: of a database that Databases does not have, only
	// records are added that the root lacks.
	Merge bool

	// Databases has the needs of the step about databases that it changed: where the root
	// has another file than the step found, only the records are changed that they name.
	Databases []snapshot.Need
}

// Var is a variable.
type Var struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Event is one apply of one step.
type Event struct {
	Seq  int     `json:"seq"` // names its directory in originals/
	Key  key.Key `json:"key"`
	Tx   int     `json:"tx"`   // the transaction: names the file in log/ that has its changes
	From int64   `json:"from"` // where in it, in bytes
	To   int64   `json:"to"`
	Not  []int   `json:"not,omitempty"` // numbers of the changes that were not done, sorted

	// Hidden are the names that the step deleted, over a root below: nothing here says
	// that they are gone. With a final slash: all names in that directory.
	Hidden []string `json:"hidden,omitempty"`

	// Again says, by the number of a change that has several lines, which counts:
	// that with this Again.
	Again map[int]int `json:"again,omitempty"`

	Space      Space     `json:"room,omitzero"`        // what undoing it takes
	Incomplete bool      `json:"incomplete,omitempty"` // some entries could not be made: it is tried again
	Adopted    bool      `json:"adopted,omitempty"`    // the step changed the root itself
	Retry      bool      `json:"retry,omitempty"`      // of Preserved: some changes could not be undone, and are tried again
	Done       time.Time `json:"done"`                 // by the file system's clock: what has a later ctime was changed since
}

// Hidden returns what the events of a log have hidden, as Event.Hidden.
func Hidden(log []Event) (all []string) {
	for _, ev := range log {
		all = append(all, ev.Hidden...)
	}
	return all
}

// IsHidden reports whether a path, or a directory above it, is among names that are
// hidden, as Event.Hidden has them.
func IsHidden(hidden map[string]bool, p string) bool {
	if hidden[p] {
		return true
	}
	for up := path.Dir(p); up != "."; up = path.Dir(up) {
		if hidden[up] || hidden[up+"/"] {
			return true
		}
	}
	return false
}

// State reads what is applied. It never waits. A root without state has the
// zero State. While a solve is at work, or after one was cut off, it is what
// was applied before.
func (d Dir) State() (*State, error) {
	data, err := d.ReadFile(stateName)
	if errors.Is(err, fs.ErrNotExist) {
		return &State{}, nil
	}
	if err != nil {
		return nil, err
	}
	s := &State{size: int64(len(data))}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, errhint.With(fmt.Errorf("%s is damaged: %w", d.Path(stateName), err), "without that file clayer starts again, and undo knows nothing of what was applied before; restore it from a copy if there is one")
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("%s is of version %d, and this clayer knows version %d: use the one that wrote it", d.Path(stateName), s.Version, stateVersion)
	}
	return s, nil
}

// Add puts a step at the end of its layer.
func (s *State) Add(step Applied) {
	i := slices.IndexFunc(s.Layers, func(l Layer) bool { return l.Name == step.Layer })
	if i < 0 {
		i = len(s.Layers)
		s.Layers = append(s.Layers, Layer{Name: step.Layer})
	}
	steps := slices.DeleteFunc(slices.Clone(s.Layers[i].Steps), func(a Applied) bool { return a.Key == step.Key })
	s.Layers[i].Steps = append(steps, step)
}

// Pristine reports whether nothing of clayer's is in the root.
func (s *State) Pristine() bool {
	return len(s.Log) == 0 && len(s.Preserved) == 0 && len(s.Layers) == 0 && len(s.Lost) == 0 && s.Profile == nil
}

// Retry reports whether there are changes that an undo could not roll back, and
// should try again.
func (s *State) Retry() bool {
	return slices.ContainsFunc(s.Preserved, func(ev Event) bool { return ev.Retry })
}

// Failed reports whether the root has what a RUN in place has done that failed.
func (s *State) Failed() bool {
	return slices.ContainsFunc(s.Log, func(ev Event) bool { return ev.Key.IsZero() })
}

// NextSeq returns the next number of an apply. None comes twice: while a
// transaction can be rolled back, the originals of what it undid keep their place.
func (s *State) NextSeq() int {
	s.Seq++
	return s.Seq
}

const stateName = "state.json"

// CommittedAt returns when the last transaction was committed, by the file
// system's clock.
func (d Dir) CommittedAt() (at time.Time, err error) {
	err = d.with(func(h *inroot.OwnDir) error {
		f, err := h.Open(stateName)
		if err != nil {
			return err
		}
		defer f.Close()
		at, err = changedAt(f.File)
		return err
	})
	return at, err
}

// Save replaces state.json, in a Dir that is open: a reader, and the next command after a kill,
// sees the old or the new one. stamp, if not nil, is called with the time by the clock
// of the file system before the state is written, and ready is called before it is
// the one that counts.
func (d Dir) Save(s *State, stamp func(now time.Time), ready func() error) (err error) {
	s.Version = stateVersion
	const temp = "state.new"
	if err := d.held.Remove(temp); err != nil { // of a kill
		return err
	}
	f, err := d.held.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = d.held.Remove(temp)
		}
	}()
	if stamp != nil {
		now, err := changedAt(f)
		if err != nil {
			return err
		}
		stamp(now)
	}
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	if _, err := d.sys.WriteFile(f, data); err != nil {
		return err
	}
	s.size = int64(len(data))
	if ready != nil {
		if err := ready(); err != nil {
			return err
		}
	}
	if err := d.sys.SyncFile(f); err != nil { // before the name: a name must never show half a file
		return err
	}
	return d.held.Rename(temp, stateName)
}

// LayerKeys names a layer of a composition with its steps in order, and the
// environment of the composition up to it.
type LayerKeys struct {
	Name  string
	Steps []key.Key
	Env   []Var
}
