package mounts

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/safefile"
)

// A Note says which cache mount a directory is of, whose name says nothing.
type Note struct {
	ID      string   `json:"id"`
	Targets []string `json:"targets,omitempty"` // where RUNs have had it, the first few
}

const (
	noteSuffix  = ".id"
	usedSuffix  = ".used"
	maxNote     = 64 << 10
	maxTargets  = 8
	partialNote = "note-"
)

// Open opens the directory of the cache mounts, which is made if it is missing. It is an
// error if another user can reach it, or its disk has no space for more.
func Open(dir string, space int64) (*os.Root, error) { return (&Source{Dir: dir}).mountsDir(space) }

// OpenExisting is Open for who only reads: a directory that is not there is fs.ErrNotExist.
func OpenExisting(dir string) (*os.Root, error) {
	d, err := safefile.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	if err := safefile.CheckDir(d); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Name returns the name of the directory of a cache mount.
func Name(id string) string { return cacheName(id) }

// UsedLock returns the name of the lock that RUNs share while they use the cache mount in
// the directory called name. Who holds it alone has the directory for itself.
func UsedLock(name string) string { return name + usedSuffix }

// Notes returns those of all cache mounts, by id.
func Notes(dir *os.Root) ([]Note, error) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, err
	}
	var all []Note
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), noteSuffix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if n := readNote(dir, name); n.ID != "" && cacheName(n.ID) == name {
			all = append(all, n)
		}
	}
	order.Stable(all, func(a, b Note) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// NoteOf returns the note of a cache mount; one that is missing, or damaged, has no targets.
func NoteOf(dir *os.Root, id string) Note {
	if n := readNote(dir, cacheName(id)); n.ID == id {
		return n
	}
	return Note{ID: id}
}

func readNote(dir *os.Root, name string) (n Note) {
	data, err := safefile.ReadFile(dir, name+noteSuffix, maxNote)
	if err != nil || json.Unmarshal(data, &n) != nil {
		return Note{}
	}
	return n
}

// Remember writes the note of a cache mount that a RUN has at target ("": nobody knows).
func Remember(dir *os.Root, id, target string) error {
	n := NoteOf(dir, id)
	if target != "" && !slices.Contains(n.Targets, target) && len(n.Targets) < maxTargets {
		n.Targets = append(n.Targets, target)
	} else if there := readNote(dir, cacheName(id)); there.ID == id {
		return nil
	}
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return safefile.WriteFile(dir, cacheName(id)+noteSuffix, partialNote, data)
}

// Forget removes what belongs to a cache mount beside its directory, but for its locks:
// others may wait for them.
func Forget(dir *os.Root, id string) error {
	if err := dir.Remove(cacheName(id) + noteSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
