package git

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/branch"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/ctxio"
)

// races is how often a push is tried again because another writer was faster.
const races = 20

// pushBatch adds changes to the branch: to what is there now, and again to what is
// there then if another writer was faster.
func (s *Store) pushBatch(ctx context.Context, batch []*change) error {
	r, err := s.openFor(batch)
	if err != nil {
		return err
	}
	defer func() { r.close() }()
	for n := 1; ; n++ {
		err = s.pushOnce(ctx, r, batch)
		var e *Error
		if errors.As(err, &e) && e.kind == otherIDs && n == 1 { // the first push to an empty one
			other, err := s.openFor(batch)
			if err != nil {
				return err
			}
			r.close()
			r = other
			continue
		}
		if errors.Is(err, errReuse) {
			s.mu.Lock()
			s.sendsAll = true
			s.mu.Unlock()
			continue
		}
		if !errors.As(err, &e) || e.kind != raced || n == races {
			return err
		}
		wait := time.NewTimer(rand.N(time.Duration(n) * 100 * time.Millisecond))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}

// openFor makes a repository that has nothing of a batch yet.
func (s *Store) openFor(batch []*change) (*repo, error) {
	for _, c := range batch {
		c.chunks, c.reused = nil, nil
	}
	return s.open()
}

func (s *Store) pushOnce(ctx context.Context, r *repo, batch []*change) error {
	x, err := s.refresh(ctx, r)
	if err != nil {
		return err
	}
	if x.Commit == "" && r.git.own && !s.opt.Yes {
		e := &Error{where: r.git.where, kind: notAllowed, act: pushing, said: fmt.Sprintf(
			"%s is the repository of this directory, and has no branch %s yet: every full clone would fetch it. Name another repository", r.git.where, s.addr.Branch)}
		s.refused.Write(e, 0)
		return e
	}
	add, err := s.collect(ctx, r, x, batch)
	if err != nil || len(add.data)+len(add.gone) == 0 {
		return err
	}
	has, err := r.graft(ctx, x.Commit, batch)
	if err != nil {
		return err
	}
	defer has.undo()
	// What is more than a push may have goes first, with no word of it.
	from := x.Commit
	for _, chunk := range add.before {
		if from, err = s.pushCommit(ctx, r, from, nil, []object{chunk}, "Add a part of a snapshot", has); err != nil {
			return err
		}
	}
	files, err := add.write(ctx, r)
	if err != nil {
		return err
	}
	commit, err := s.pushCommit(ctx, r, from, files, add.parents, add.text(), has)
	if err != nil {
		return err
	}
	s.seen(x.With(commit, files, add.data))
	return nil
}

// refresh fetches what the branch has now.
func (s *Store) refresh(ctx context.Context, r *repo) (x *index, err error) {
	err = s.try(ctx, reading, func(ctx context.Context) (err error) {
		x, err = s.fetchIndex(ctx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.seen(x)
	return x, nil
}

// An addition is what a commit adds to the branch.
type addition struct {
	data    map[string][]byte // files, by path
	gone    []string          // files that go
	before  []object          // commits that are pushed before, one by one
	parents []object
	steps   int
	layers  []string
}

// collect returns what the branch lacks of changes. It ends those that need no push, or
// can't have one.
func (s *Store) collect(ctx context.Context, r *repo, x *index, batch []*change) (*addition, error) {
	add := &addition{data: make(map[string][]byte)}
	fresh := make(map[string]*stored) // by digest
	shelves := make(map[key.Key]*branch.Shelf)
	for _, c := range batch {
		if c.ended || c.step == nil {
			continue
		}
		sh := shelves[c.step.Key]
		if sh == nil {
			sh = x.Shelf(c.step.Key)
			shelves[c.step.Key] = sh
		}
		name, gone, stores := sh.Put(c.step.Descriptor)
		for _, name := range gone {
			delete(add.data, name)
		}
		add.gone = append(add.gone, gone...)
		if !stores {
			if add.data[name] == nil && len(gone) == 0 {
				c.end(nil)
			}
			continue
		}
		switch st, ok := x.Find(c.step.Descriptor); {
		case ok:
			c.step.Commit, c.step.Pieces = st.Commit, st.Pieces
		case fresh[string(c.step.Digest)] != nil:
			st := fresh[string(c.step.Digest)]
			c.step.Commit, c.step.Pieces = st.Commit, st.Pieces
		default:
			if len(c.chunks) == 0 || len(c.reused) > 0 { // what was there may be gone
				if err := s.hash(ctx, r, x, c); err != nil {
					return nil, err
				}
			}
			for i, ch := range c.chunks {
				if i < len(c.chunks)-1 {
					add.before = append(add.before, ch.commit)
				} else {
					add.parents = append(add.parents, ch.commit)
				}
			}
			fresh[string(c.step.Digest)] = c.step
		}
		c.step.Pushed = time.Now().UTC().Truncate(time.Second)
		data, err := branch.Marshal(c.step)
		if err != nil {
			return nil, err
		}
		add.data[name] = data
		add.steps++
	}
	for _, c := range batch {
		if c.ended || c.layer == nil {
			continue
		}
		name := layerPath(c.layer)
		if there, ok := x.Layer(name); ok && stays(there, c.layer) {
			c.end(nil)
			continue
		}
		l, err := complete(c.layer, x, fresh)
		if err != nil {
			c.end(err)
			continue
		}
		data, err := branch.Marshal(l)
		if err != nil {
			return nil, err
		}
		add.data[name] = data
		add.layers = append(add.layers, c.layer.Tag())
	}
	if len(add.data) > 0 && x.Commit == "" {
		data, err := json.Marshal(mark{version})
		if err != nil {
			return nil, err
		}
		add.data[markName], add.data[branch.ReadmeName] = append(data, '\n'), []byte(readme)
	}
	return add, nil
}

// complete returns a layer as its file has it. All its steps are on the branch, or in fresh.
func complete(m *cache.Manifest, x *index, fresh map[string]*stored) (*layer, error) {
	l := &layer{Manifest: *m}
	l.Manifest.Steps = nil
	for _, d := range m.Steps {
		st, ok := x.Find(d)
		if !ok {
			st = fresh[string(d.Digest)]
		}
		if st == nil {
			return nil, fmt.Errorf("step %s: %w", d.Key.Short(), cache.ErrNotCached)
		}
		l.Steps = append(l.Steps, stored{Descriptor: d, Commit: st.Commit, Pieces: st.Pieces, Pushed: st.Pushed})
	}
	return l, nil
}

// stays reports whether a layer stays where another one is to be listed: of the same steps,
// possibly of other variants.
func stays(l *layer, m *cache.Manifest) bool {
	return l.Platform == m.Platform && m.Covers(l.AsManifest()) &&
		slices.EqualFunc(l.LeftOut, m.LeftOut, func(a, b cache.LeftOut) bool { return a.Key == b.Key && a.Index == b.Index })
}

// text says what a commit adds.
func (a *addition) text() string {
	text := "Add a layer"
	switch {
	case a.steps == 1:
		text = "Add a step"
	case a.steps > 1:
		text = fmt.Sprintf("Add %d steps", a.steps)
	case len(a.layers) == 0:
		text = "Remove snapshots that others took the place of"
	case len(a.layers) > 1:
		text = fmt.Sprintf("Add %d layers", len(a.layers))
	}
	for _, tag := range a.layers {
		text += "\n\n" + tag
	}
	return text
}

// write writes the files of an addition.
func (a *addition) write(ctx context.Context, r *repo) ([]file, error) {
	var files []file
	var contents [][]byte
	for name, data := range a.data {
		files, contents = append(files, file{Path: name}), append(contents, data)
	}
	ids, err := r.writeFiles(ctx, contents)
	if err != nil {
		return nil, err
	}
	for i := range files {
		files[i].ID = ids[i]
	}
	for _, name := range a.gone {
		if a.data[name] == nil {
			files = append(files, file{Path: name})
		}
	}
	return files, nil
}

// pushCommit pushes a commit that adds files, and ancestors, to one that is the branch's. The
// error is errReuse if that may be since the server has not what it should have.
func (s *Store) pushCommit(ctx context.Context, r *repo, from object, files []file, parents []object, text string, has grafts) (object, error) {
	tree, err := r.writeTree(ctx, from, files)
	if err != nil {
		return "", err
	}
	if from != "" {
		parents = append([]object{from}, parents...)
	}
	commit, err := r.writeCommit(ctx, tree, parents, text, time.Now())
	if err != nil {
		return "", err
	}
	push := func(ctx context.Context) error {
		if err := s.rate.Wait(ctx); err != nil {
			return err
		}
		return r.push(ctx, s.addr.Branch, commit, nil)
	}
	if !has.any() {
		return commit, s.try(ctx, pushing, push)
	}
	err = push(ctx)
	var e *Error
	if errors.As(err, &e) && e.kind != raced && ctx.Err() == nil {
		slog.Debug("a push of the changed pieces alone failed; all are sent", "store", s.Location(), "err", err)
		return "", errReuse
	}
	return commit, err
}

// hash writes the pieces of a snapshot that the branch lacks, and the commits that have all of
// them: one for each push that it takes.
func (s *Store) hash(ctx context.Context, r *repo, x *index, c *change) error {
	pieces, chunks, reused := []piece{}, []chunk(nil), []file(nil)
	var there map[object]bool
	if !s.sendsAllPieces() {
		there = x.Pieces()
	}
	var files []file
	var parents []object
	commit := func() error {
		tree, err := r.writeTree(ctx, "", files)
		if err != nil {
			return err
		}
		one, err := r.writeCommit(ctx, tree, parents, "Snapshot "+c.step.Digest.String(), time.Time{})
		chunks, parents, files = append(chunks, chunk{one, parents}), []object{one}, nil
		return err
	}
	bytes, at := int64(0), int64(0) // bytes of files that are sent
	for _, size := range s.cut(c.step.Descriptor) {
		content := func() io.Reader { return ctxio.Reader(ctx, io.NewSectionReader(c.blob, at, size)) }
		var id object
		var err error
		if len(there) > 0 {
			if id, err = r.git.blobID(content(), size); err != nil {
				return err
			}
		}
		name := fmt.Sprintf("%03d", len(pieces))
		if there[id] {
			reused = append(reused, file{Path: name, ID: id})
		} else {
			if bytes += size; len(files) > 0 && bytes > s.opt.PushSize {
				if err := commit(); err != nil {
					return err
				}
				bytes = size
			}
			if id, err = r.object(ctx, content(), "hash-object", "-w", "--stdin"); err != nil {
				return err
			}
		}
		files, pieces = append(files, file{Path: name, ID: id}), append(pieces, piece{ID: id, Size: size})
		at += size
	}
	if err := commit(); err != nil {
		return err
	}
	c.chunks, c.reused, c.step.Pieces, c.step.Commit = chunks, reused, pieces, chunks[len(chunks)-1].commit
	return nil
}
