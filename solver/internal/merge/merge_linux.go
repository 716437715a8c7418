package merge

import (
	"bytes"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/record"
)

// A Merger applies changes of databases record by record. It is for one snapshot.
type Merger struct {
	changes   map[string]*snapshot.Need // by path
	preserved map[string][]string       // by path, the keys of records that the user changed
	merged    map[string]bool           // by path, as far as it is known: whether the root had another file
	before    map[string][]byte         // by path, databases with secrets that the root had then
	below     Below

	merges bool            // databases of which nothing is known
	lists  map[string]bool // of packages of dpkg whose files the snapshot has, or, if false, deletes
}

// Below returns the database that is at a path in the root that another one is layered
// over; nil where there is none.
type Below func(path string) ([]byte, *record.Meta, error)

// New returns the merger for the snapshot of a step. Of preserved, the keys of records by
// the path of their database, nothing is changed. below may be nil.
func New(step record.Placement, preserved map[string][]string, below Below) *Merger {
	needs := step.Databases
	m := &Merger{merges: step.Merge, lists: make(map[string]bool), changes: make(map[string]*snapshot.Need), preserved: preserved, merged: make(map[string]bool), before: make(map[string][]byte), below: below}
	for i := range needs {
		m.changes[needs[i].Path] = &needs[i]
	}
	return m
}

// Entry returns an entry as it is to be applied, and how what it does to a database is
// undone: where the root has another file than the step found, the entry is that file
// with the records that the step changed. Any other entry is returned as it is.
func (m *Merger) Entry(root *inroot.Dirs, e *snapshot.Entry) (*snapshot.Entry, *record.Records, error) {
	if need := m.changes[e.Path]; need != nil && need.Kind == snapshot.NeedAlternative {
		out, err := m.alternative(root, e, need)
		return out, nil, err
	}
	if name, ok := strings.CutPrefix(e.Path, "var/lib/dpkg/info/"); ok {
		if name, ok = strings.CutSuffix(name, ".list"); ok {
			m.lists[name] = e.Kind != snapshot.Delete
		}
	}
	db, known := databases.Known(e.Path)
	if !known || e.Size > databases.MaxSize {
		return e, nil, nil
	}
	need := m.changes[db.Main()]
	if need == nil {
		return m.add(root, db, e)
	}
	if e.Kind != snapshot.File {
		return e, nil, m.replaced(root, db, need)
	}
	here, like, err := m.here(root, e.Path)
	if err != nil {
		return nil, nil, err
	}
	merged, err := m.differs(root, need)
	if err != nil {
		return nil, nil, err
	}
	// Of a file that is as the step found it, what the user changed stays as well.
	merged = merged || len(m.preserved[e.Path]) > 0
	r := &record.Records{Database: e.Path}
	secrets := db.HasSecrets()
	if db.IsBackup() && (!merged || like == nil) && !secrets {
		return e, r, nil
	}
	result, err := content(e)
	if err != nil {
		return nil, nil, err
	}
	out := *e
	if before := m.before[need.Path]; secrets {
		filled, all := db.Fill(before, result)
		switch {
		case db.IsBackup() && like == nil && (merged || !all):
			filled = before // what a tool would leave that changes the file
		case !all:
			merged = true // the root has not what the needs say that it has
		}
		result, out.Data = filled, nil
	}
	if merged && (like != nil || !db.IsBackup()) && db.CanMerge(here, result) {
		var c databases.Changes
		if !db.IsBackup() {
			c, r.Preserved = databases.Changes{Set: need.Set, Removed: need.Removed}.Without(m.preserved[e.Path])
		}
		file, conflicts, err := db.Merge(here, result, c)
		if err != nil {
			return nil, nil, &snapshot.UnsafeError{Path: e.Path, Reason: err.Error()}
		}
		if len(conflicts) > 0 {
			return nil, nil, &ConflictError{Path: e.Path, Conflicts: conflicts}
		}
		result, out.Data = file, nil
		if like != nil {
			giveMeta(&out, like)
		}
	}
	if r.Undo, err = db.Diff(result, here); err != nil {
		return nil, nil, err
	}
	return withContent(&out, result), r, nil
}

func withContent(e *snapshot.Entry, data []byte) *snapshot.Entry {
	e.Content, e.Size, e.Release = data, int64(len(data)), nil
	e.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return e
}

// add is Entry for a database of which nothing says what the step changed in it, as in
// snapshots of earlier versions. The root gets the records that it lacks, and of packages
// what dpkg has in the snapshot; its own stay.
func (m *Merger) add(root *inroot.Dirs, db databases.Database, e *snapshot.Entry) (*snapshot.Entry, *record.Records, error) {
	if !m.merges || e.Kind != snapshot.File || db.IsList() {
		return e, nil, nil
	}
	here, like, err := m.here(root, e.Path)
	if err != nil || like == nil {
		return e, nil, err
	}
	r := &record.Records{Database: e.Path}
	result, err := content(e)
	if err != nil {
		return nil, nil, err
	}
	out := *e
	giveMeta(&out, like)
	out.Data = nil
	merged := here
	if !db.IsBackup() {
		c, err := db.Diff(here, result)
		if err == nil {
			merged, _, err = db.Merge(here, result, c.Where(m.takes(db)))
		}
		if err == nil {
			r.Undo, err = db.Diff(merged, here)
		}
		if err != nil {
			return nil, nil, &snapshot.UnsafeError{Path: e.Path, Reason: err.Error()}
		}
	}
	return withContent(&out, merged), r, nil
}

// takes returns what reports whether a record is changed as the snapshot has it: one that
// the root lacks; of packages, one whose files are in the snapshot, or deleted by it.
func (m *Merger) takes(db databases.Database) func(key string, added, removed bool) bool {
	if !db.IsOfPackages() {
		return func(_ string, added, _ bool) bool { return added }
	}
	return func(key string, _, removed bool) bool {
		name, _, _ := strings.Cut(key, ":") // before the architecture
		installs, known := m.lists[key]
		if !known {
			installs, known = m.lists[name]
		}
		return known && installs != removed
	}
}

// alternative returns a link of alternatives as it is to be applied: what the root has
// stays where somebody chose it, or it is another choice than the step found, and of no
// lower priority.
func (m *Merger) alternative(root *inroot.Dirs, e *snapshot.Entry, need *snapshot.Need) (*snapshot.Entry, error) {
	target, err := readLink(root, e.Path)
	asFound := digest.FromString(target) == need.Digest
	if err == nil && target == "" && e.Kind == snapshot.Symlink {
		return m.follower(root, e, need)
	}
	if err != nil || target == "" || e.Kind != snapshot.Symlink && (e.Kind != snapshot.Delete || asFound) {
		return e, err
	}
	file, _, err := m.here(root, databases.AlternativesFile(need.Name))
	if err != nil {
		return nil, err
	}
	if e.Kind == snapshot.Symlink && !databases.Outranks(file, e.Path, target, asFound, databases.Choice{Group: need.Name, Priority: need.Version}) {
		return e, nil
	}
	out := *e
	out.Kind, out.Target = snapshot.Symlink, target
	return &out, nil
}

// follower is alternative for a link that the root lacks: it is left out where the one that
// it follows stays.
func (m *Merger) follower(root *inroot.Dirs, e *snapshot.Entry, need *snapshot.Need) (*snapshot.Entry, error) {
	group := path.Join(path.Dir(e.Path), path.Base(need.Name))
	target, err := readLink(root, group)
	if err != nil || target == "" || group == e.Path {
		return e, err
	}
	file, _, err := m.here(root, databases.AlternativesFile(need.Name))
	if err != nil || !databases.Outranks(file, group, target, false, databases.Choice{Group: need.Name, Priority: need.Version}) {
		return e, err
	}
	out := *e
	out.Kind, out.Target = snapshot.Delete, ""
	return &out, nil
}

// readLink returns the target of a link; "" where there is none.
func readLink(dirs *inroot.Dirs, p string) (string, error) {
	fd, _, err := dirs.Resolve(dirs.Root, path.Dir(p), dirs.Openat2)
	if err != nil {
		return "", inroot.UnlessMissing(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, path.Base(p), buf)
	if err != nil {
		return "", nil // another kind of file, or none
	}
	return string(buf[:n]), nil
}

// replaced returns an error where a step removes a database, or puts a link in its place,
// and the root has another one than the step found: its records would be gone.
func (m *Merger) replaced(root *inroot.Dirs, db databases.Database, need *snapshot.Need) error {
	if db.IsBackup() {
		return nil
	}
	differs, err := m.differs(root, need)
	if err != nil || !differs {
		return err
	}
	return &ConflictError{Path: db.String(), Conflicts: []databases.Conflict{{Record: "all records", Why: "the file is another one here, and the step puts something else in its place"}}}
}

// differs reports whether the root has another database than the step found. It is seen
// once, before the step changes it.
func (m *Merger) differs(root *inroot.Dirs, need *snapshot.Need) (bool, error) {
	if differs, known := m.merged[need.Path]; known {
		return differs, nil
	}
	here, like, err := m.here(root, need.Path)
	if err != nil {
		return false, err
	}
	differs := like == nil && need.Digest != "" || like != nil && digest.FromBytes(here) != need.Digest
	m.merged[need.Path] = differs
	if db, _ := databases.Known(need.Path); db.HasSecrets() {
		m.before[need.Path] = here
	}
	return differs, nil
}

// content reads all of a file.
func content(e *snapshot.Entry) ([]byte, error) {
	if e.Content != nil {
		data := slices.Clone(e.Content)
		if e.Release != nil {
			e.Release()
		}
		return data, nil
	}
	f, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, e.Size))
}

// here returns the database that the root has at a path, or the root that it is layered
// over, and its metadata; nil where there is none.
func (m *Merger) here(root *inroot.Dirs, p string) ([]byte, *record.Meta, error) {
	data, like, err := Read(root, p)
	if like != nil || err != nil || m.below == nil {
		return data, like, err
	}
	return m.below(p)
}

// Read reads the database at a path, following no link at its end. It may be
// called while the root is changed elsewhere.
func Read(dirs *inroot.Dirs, p string) ([]byte, *record.Meta, error) {
	fd, _, err := dirs.Resolve(dirs.Root, path.Dir(p), dirs.Openat2)
	if err != nil {
		return nil, nil, inroot.UnlessMissing(err)
	}
	defer unix.Close(fd)
	return record.ReadDatabase(dirs.Sys, fd, path.Base(p))
}

// giveMeta gives an entry the metadata of the file that it takes the place of.
func giveMeta(e *snapshot.Entry, m *record.Meta) {
	e.Mode, e.UID, e.GID, e.Xattrs = m.Mode, m.UID, m.GID, nil
	for k, v := range m.Xattrs {
		if e.Xattrs == nil {
			e.Xattrs = make(map[string]string)
		}
		e.Xattrs[k] = string(v)
	}
}
