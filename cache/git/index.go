package git

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/branch"
	"github.com/clayer/clayer/dag/key"
)

const (
	markName   = "clayer.json"
	readmeName = "README.md"

	// version is that of the branch's form.
	version = 1

	// maxFile bounds what is read of a file, and maxIndex what is fetched of all.
	maxFile  = 4 << 20
	maxIndex = 512 << 20

	// maxPieces bounds the pieces of a snapshot: 450 GB.
	maxPieces = 10_000
)

// A stored is a step: a file in keys.
type stored struct {
	cache.Descriptor
	Commit object  `json:"commit"` // that has the pieces as its files
	Pieces []piece `json:"objects"`

	Pushed time.Time `json:"pushed"` // by the clock of the machine that did

	name string // the path of its file
}

// A piece is an object with a part of a snapshot.
type piece struct {
	ID   object `json:"id"`
	Size int64  `json:"size"`
}

// A layer is complete: a file in layers.
type layer struct {
	cache.Manifest
	Steps []stored `json:"steps"` // hides the manifest's
}

// manifest returns the layer as other packages know it.
func (l *layer) manifest() cache.Manifest {
	m := l.Manifest
	for i := range l.Steps {
		m.Steps = append(m.Steps, l.Steps[i].Descriptor)
	}
	return m
}

// mark is the content of clayer.json.
type mark struct {
	Version int `json:"version"`
}

const readme = `# Snapshots of clayer

clayer stores here what it built, so that other machines restore it in place of building. The snapshots are in the commits that the last one has as parents.

It is safe to delete this branch: what is missing is built again. ` + "`clayer cache prune`" + ` removes old layers.
`

func layerPath(m *cache.Manifest) string { return branch.LayerPath(m.Tag()) }

// valid reports whether a step can be what it says: it comes from where others write.
func (st *stored) valid() bool {
	sum := int64(0)
	for _, p := range st.Pieces {
		if !p.ID.valid() || p.Size < 0 || p.Size > st.Size {
			return false
		}
		sum += p.Size
	}
	return !st.Key.IsZero() && st.Commit.valid() && len(st.Pieces) <= maxPieces && sum == st.Size &&
		cache.ValidDigest(st.Digest)
}

// An index is what the last commit of the branch says.
type index struct {
	commit object            // "" where there is no branch
	files  map[string]object // all of them
	data   map[string][]byte // contents of those in keys and layers, by path

	once      sync.Once
	snapshots map[digest.Digest]*stored

	said sync.Map // the files that were warned of
}

// newIndex reads the files of a commit.
func newIndex(ctx context.Context, r *repo, commit object, warn func(string)) (*index, error) {
	x := &index{commit: commit, files: make(map[string]object), data: make(map[string][]byte)}
	if commit == "" {
		return x, nil
	}
	all, err := r.files(ctx, commit)
	if err != nil {
		return nil, err
	}
	var read []file
	var ids []object
	for _, f := range all {
		x.files[f.path] = f.id
		top, _, _ := strings.Cut(f.path, "/")
		if (top == branch.Keys || top == branch.Layers || top == markName) && strings.HasSuffix(f.path, ".json") {
			read, ids = append(read, f), append(ids, f.id)
		}
	}
	large := 0
	err = r.contents(ctx, ids, func(i int, kind string, size int64, content io.Reader) error {
		if kind != "blob" || size > maxFile {
			large++
			return nil
		}
		data := make([]byte, size)
		_, err := io.ReadFull(content, data)
		x.data[read[i].path] = data
		return err
	})
	if err != nil {
		return nil, err
	}
	if large > 0 {
		warn(fmt.Sprintf("%s: %d files of the branch are too large, or missing: they count as not there", r.git.where, large))
	}
	return x, x.check(r.git.where)
}

// check reports why the branch is not one of this package.
func (x *index) check(where string) error {
	var m mark
	data, ok := x.data[markName]
	switch {
	case x.commit == "":
		return nil
	case !ok || json.Unmarshal(data, &m) != nil || m.Version == 0:
		return &Error{where: where, kind: foreign, said: where + ": the branch is not one of clayer's: name another one, as in git:URL#clayer-cache"}
	case m.Version > version:
		return &Error{where: where, kind: foreign, said: fmt.Sprintf("%s: the branch has version %d, and this program knows %d: use a later clayer, or name another branch", where, m.Version, version)}
	}
	return nil
}

// step returns the first snapshot of a key.
func (x *index) step(k key.Key) (*stored, bool) {
	if all := x.variants(k); len(all) > 0 {
		return all[0], true
	}
	return nil, false
}

// stored reads a file in keys.
func (x *index) stored(name string, k key.Key) (*stored, bool) {
	data, ok := x.data[name]
	if !ok {
		return nil, false
	}
	st := stored{name: name}
	err := json.Unmarshal(data, &st)
	if err == nil && (st.Key != k || !st.valid()) {
		err = errors.New("not the step of its key")
	}
	if err != nil {
		x.senseless(name, err)
		return nil, false
	}
	return &st, true
}

// layer reads a file in layers.
func (x *index) layer(name string) (*layer, bool) {
	data, ok := x.data[name]
	if !ok {
		return nil, false
	}
	var l layer
	err := json.Unmarshal(data, &l)
	if err == nil && layerPath(&l.Manifest) != name {
		err = errors.New("not the layer of its name")
	}
	for i := range l.Steps {
		if err == nil && !l.Steps[i].valid() {
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
func (x *index) senseless(name string, err error) {
	if _, said := x.said.LoadOrStore(name, true); !said {
		slog.Warn("a file of the branch makes no sense; it counts as not there", "file", name, "err", err)
	}
}

// layers returns all layers, by the paths of their files.
func (x *index) layers() map[string]*layer {
	all := make(map[string]*layer)
	for name := range x.data {
		if strings.HasPrefix(name, branch.Layers+"/") {
			if l, ok := x.layer(name); ok {
				all[name] = l
			}
		}
	}
	return all
}

// steps returns all steps of keys, oldest first.
func (x *index) steps() (all []*stored) {
	for name := range x.data {
		if !strings.HasPrefix(name, branch.Keys+"/") {
			continue
		}
		if k, ok := branch.KeyOf(name); ok {
			if st, ok := x.stored(name, k); ok {
				all = append(all, st)
			}
		}
	}
	slices.SortFunc(all, func(a, b *stored) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return cmp.Or(bytes.Compare(a.Key[:], b.Key[:]), strings.Compare(a.name, b.name))
	})
	return all
}

// find returns where the bytes of a descriptor are.
func (x *index) find(d cache.Descriptor) (*stored, bool) {
	if st, ok := x.step(d.Key); ok && st.Digest == d.Digest && st.Size == d.Size {
		return st, true
	}
	x.once.Do(func() {
		x.snapshots = make(map[digest.Digest]*stored)
		for _, l := range x.layers() {
			for i := range l.Steps {
				x.snapshots[l.Steps[i].Digest] = &l.Steps[i]
			}
		}
		for _, st := range x.steps() {
			x.snapshots[st.Digest] = st
		}
	})
	st, ok := x.snapshots[d.Digest]
	return st, ok && st.Size == d.Size
}

// with returns the index of the next commit, which has other files too, and lacks some.
func (x *index) with(commit object, files []file, data map[string][]byte) *index {
	next := &index{commit: commit, files: maps.Clone(x.files), data: maps.Clone(x.data)}
	for _, f := range files {
		next.files[f.path] = f.id
		if f.id == "" {
			delete(next.files, f.path)
			delete(next.data, f.path)
		}
	}
	maps.Copy(next.data, data)
	return next
}

// marshal returns a file of the branch.
func marshal(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", " ")
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("a descriptor of %d bytes; the branch takes no more than %d", len(data), maxFile)
	}
	return append(data, '\n'), err
}
