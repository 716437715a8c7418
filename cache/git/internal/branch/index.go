package branch

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// ReadmeName is the file for people.
const ReadmeName = "README.md"

const (
	// MaxFile bounds what is read of a file.
	MaxFile = 4 << 20

	// maxPieces bounds the pieces of a snapshot: 450 GB.
	maxPieces = 10_000

	// abandonedStep is how old a step of no layer is that is removed.
	abandonedStep = 14 * 24 * time.Hour
)

// An Object is the id of one, in hex.
type Object string

var isObject = lazyregexp.New(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func (o Object) Valid() bool { return isObject().MatchString(string(o)) }

// A Stored is a step: a file in keys.
type Stored struct {
	cache.Descriptor
	Commit Object  `json:"commit"` // that has the pieces as its files
	Pieces []Piece `json:"objects"`

	Pushed time.Time `json:"pushed"` // by the clock of the machine that did

	Path string `json:"-"` // of its file
}

// A Piece is an object with a part of a snapshot.
type Piece struct {
	ID   Object `json:"id"`
	Size int64  `json:"size"`
}

// A Layer is complete: a file in layers.
type Layer struct {
	cache.Manifest
	Steps []Stored `json:"steps"` // hides the manifest's
}

// AsManifest returns the layer as other packages know it.
func (l *Layer) AsManifest() cache.Manifest {
	m := l.Manifest
	for i := range l.Steps {
		m.Steps = append(m.Steps, l.Steps[i].Descriptor)
	}
	return m
}

// Valid reports whether a step can be what it says: it comes from where others write.
func (st *Stored) Valid() bool {
	sum := int64(0)
	for _, p := range st.Pieces {
		if !p.ID.Valid() || p.Size < 0 || p.Size > st.Size {
			return false
		}
		sum += p.Size
	}
	return !st.Key.IsZero() && st.Commit.Valid() && len(st.Pieces) <= maxPieces && sum == st.Size &&
		cache.ValidDigest(st.Digest)
}

// An Index is what the last commit of the branch says.
type Index struct {
	Commit Object            // "" where there is no branch
	Files  map[string]Object // all of them
	Data   map[string][]byte // contents of those in keys and layers, by path

	once      sync.Once
	snapshots map[digest.Digest]*Stored

	said sync.Map // the files that were warned of
}

// Step returns the first snapshot of a key.
func (x *Index) Step(k key.Key) (*Stored, bool) {
	if all := x.Variants(k); len(all) > 0 {
		return all[0], true
	}
	return nil, false
}

// Snapshot reads a file in keys.
func (x *Index) Snapshot(name string, k key.Key) (*Stored, bool) {
	data, ok := x.Data[name]
	if !ok {
		return nil, false
	}
	st := Stored{Path: name}
	err := json.Unmarshal(data, &st)
	if err == nil && (st.Key != k || !st.Valid()) {
		err = errors.New("not the step of its key")
	}
	if err != nil {
		x.senseless(name, err)
		return nil, false
	}
	return &st, true
}

// Layer reads a file in layers.
func (x *Index) Layer(name string) (*Layer, bool) {
	data, ok := x.Data[name]
	if !ok {
		return nil, false
	}
	var l Layer
	err := json.Unmarshal(data, &l)
	if err == nil && LayerPath(l.Manifest.Tag()) != name {
		err = errors.New("not the layer of its name")
	}
	for i := range l.Steps {
		if err == nil && !l.Steps[i].Valid() {
			err = fmt.Errorf("step %s makes no sense", l.Steps[i].Key.Short())
		}
	}
	if err != nil {
		x.senseless(name, err)
		return nil, false
	}
	return &l, true
}

// senseless warns of a file, once.
func (x *Index) senseless(name string, err error) {
	if _, said := x.said.LoadOrStore(name, true); !said {
		slog.Warn("a file of the branch makes no sense; it counts as not there", "file", name, "err", err)
	}
}

// Layers returns all layers, by the paths of their files.
func (x *Index) Layers() map[string]*Layer {
	all := make(map[string]*Layer)
	for name := range x.Data {
		if strings.HasPrefix(name, Layers+"/") {
			if l, ok := x.Layer(name); ok {
				all[name] = l
			}
		}
	}
	return all
}

// Steps returns all steps of keys, oldest first.
func (x *Index) Steps() (all []*Stored) {
	for name := range x.Data {
		if !strings.HasPrefix(name, Keys+"/") {
			continue
		}
		if k, ok := KeyOf(name); ok {
			if st, ok := x.Snapshot(name, k); ok {
				all = append(all, st)
			}
		}
	}
	slices.SortFunc(all, func(a, b *Stored) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return cmp.Or(bytes.Compare(a.Key[:], b.Key[:]), strings.Compare(a.Path, b.Path))
	})
	return all
}

// Find returns where the bytes of a descriptor are.
func (x *Index) Find(d cache.Descriptor) (*Stored, bool) {
	if st, ok := x.Step(d.Key); ok && st.Digest == d.Digest && st.Size == d.Size {
		return st, true
	}
	x.once.Do(func() {
		x.snapshots = make(map[digest.Digest]*Stored)
		for _, l := range x.Layers() {
			for i := range l.Steps {
				x.snapshots[l.Steps[i].Digest] = &l.Steps[i]
			}
		}
		for _, st := range x.Steps() {
			x.snapshots[st.Digest] = st
		}
	})
	st, ok := x.snapshots[d.Digest]
	return st, ok && st.Size == d.Size
}

// With returns the index of the next commit, which has other files too, and lacks some.
func (x *Index) With(commit Object, files []File, data map[string][]byte) *Index {
	next := &Index{Commit: commit, Files: maps.Clone(x.Files), Data: maps.Clone(x.Data)}
	for _, f := range files {
		next.Files[f.Path] = f.ID
		if f.ID == "" {
			delete(next.Files, f.Path)
			delete(next.Data, f.Path)
		}
	}
	maps.Copy(next.Data, data)
	return next
}

// Marshal returns a file of the
func Marshal(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", " ")
	if err == nil && len(data) > MaxFile {
		err = fmt.Errorf("a descriptor of %d bytes; the branch takes no more than %d", len(data), MaxFile)
	}
	return append(data, '\n'), err
}

// Without returns the index without layers, and without what only they have; nil if none
// of them is there.
func (x *Index) Without(ms []cache.Manifest) *Index {
	left := x.With("", nil, nil)
	var gone []*Layer
	for i := range ms {
		name := LayerPath(ms[i].Tag())
		if l, ok := x.Layer(name); ok {
			gone = append(gone, l)
		}
		delete(left.Data, name)
	}
	if len(gone) == 0 {
		return nil
	}
	used, removed := make(map[string]bool), make(map[string]bool) // by key
	for _, l := range left.Layers() {
		for _, st := range l.Steps {
			used[st.Key.String()] = true
		}
	}
	for _, l := range gone {
		for _, st := range l.Steps {
			removed[st.Key.String()] = true
		}
	}
	for _, st := range x.Steps() {
		k := st.Key.String()
		if !used[k] && (removed[k] || time.Since(st.Pushed) > abandonedStep) {
			delete(left.Data, st.Path)
		}
	}
	for name := range left.Files {
		if left.Data[name] == nil && name != ReadmeName {
			delete(left.Files, name)
		}
	}
	return left
}

// Each calls f for every snapshot, possibly several times.
func (x *Index) Each(f func(*Stored)) {
	for _, l := range x.Layers() {
		for i := range l.Steps {
			f(&l.Steps[i])
		}
	}
	for _, st := range x.Steps() {
		f(st)
	}
}

// Commits returns those with the snapshots.
func (x *Index) Commits() (all []Object) {
	x.Each(func(st *Stored) { all = append(all, st.Commit) })
	slices.Sort(all)
	return slices.Compact(all)
}

// Bytes returns the size of all snapshots.
func (x *Index) Bytes() (n int64) {
	seen := make(map[Object]bool)
	x.Each(func(st *Stored) {
		if !seen[st.Commit] {
			seen[st.Commit] = true
			n += st.Size
		}
	})
	return n
}

// Variants returns the snapshots of a key, the first first.
func (x *Index) Variants(k key.Key) (all []*Stored) {
	for _, name := range StepPaths(k) {
		if st, ok := x.Snapshot(name, k); ok {
			all = append(all, st)
		}
	}
	return all
}

func (x *Index) Shelf(k key.Key) *Shelf {
	sh := new(Shelf)
	for _, st := range x.Variants(k) {
		sh.Snapshots, sh.Paths = append(sh.Snapshots, st.Descriptor), append(sh.Paths, st.Path)
	}
	return sh
}

// A File is one of a tree; without an id, one that is removed.
type File struct {
	Path string
	ID   Object
}

// Pieces returns the objects of the snapshots that are listed.
func (x *Index) Pieces() map[Object]bool {
	all := make(map[Object]bool)
	x.Each(func(st *Stored) {
		for _, p := range st.Pieces {
			all[p.ID] = true
		}
	})
	return all
}
