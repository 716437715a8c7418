package unpack

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/metadata"
	"github.com/clayer/clayer/solver/internal/record"
)

// MaxChunk is how many entries are made before the root is changed by them:
// one sync is for all of them, and they are held in memory, without content.
const MaxChunk = 16 << 10

// staged is an entry that was made, but not where it belongs.
type staged struct {
	e    *snapshot.Entry
	n    int            // of its change
	at   string         // where it is made in the stage directory: its number, or a path in a new directory
	in   *newDir        // the new directory that it is made in, or is; nil: none
	now  *record.Meta   // nil for what only deletes
	err  error          // why it could not be created
	line *record.Change // its announcement; nil: it has none that holds

	records *record.Records // of a database

	leftOut   bool // this user may not create it
	announced bool // it has a line, be it one that another took the place of
	implicit  bool // an implicit parent
	round     int  // of the new directory, when its line was announced
}

// errNotMade says that an entry was left out for want of privilege.
var errNotMade = errors.New("not made")

// A stager makes entries in the stage directory, a chunk at a time, while the root is
// changed by the chunk before. Files whose content is in memory are made by
// workers, on all cores: the order in which they come there is of no meaning.
type stager struct {
	to    *recorder // changes the root by what is staged
	own   *maker    // makes what no worker does
	chunk []*staged
	most  int        // entries of this chunk
	prev  chan error // what became of the chunk before; nil: that is known
	new   *newDir    // that entries are made in; nil: none
	reach string     // the directory in which the chunk before ended

	batch []*staged // that no worker has yet
	bytes int64     // of the content of batch
	work  chan []*staged
	ended sync.WaitGroup // of the workers
	begun sync.WaitGroup // an entry each

	mu           sync.Mutex
	failed       error // after which nothing is to be made
	written      int64
	unprivileged int
	foreign      metadata.Foreign
}

const (
	firstChunk = 2 << 10 // small, so that the root is changed soon

	// While it is not known whether a stream is verified, more is staged than a chunk.
	mostUnverified = 64 << 10

	// A batch is a few files, so that handing them over costs little, and holds
	// little memory.
	batchFiles = 64
	batchBytes = 1 << 20
)

func newStager(r *recorder) *stager { return &stager{to: r, own: r.beside(), most: firstChunk} }

// stage makes an entry in the stage directory: all that takes time, or space, or
// can fail for what is in the stream, before the root is touched.
func (st *stager) stage(ctx context.Context, e *snapshot.Entry, records *record.Records) error {
	if len(st.chunk) >= st.most && (len(st.chunk) >= mostUnverified || st.to.isVerified()) {
		if err := st.change(ctx); err != nil {
			return err
		}
	}
	if e.Kind == snapshot.Link { // its target must be there
		if err := st.settle(); err != nil {
			return err
		}
		if st.own.target(e) == nil {
			if err := st.wait(); err != nil {
				return err
			}
		}
	}
	if err := st.add(ctx, e, records); err != nil {
		return fmt.Errorf("%q: %w", e.Path, err)
	}
	return nil
}

func (st *stager) add(ctx context.Context, e *snapshot.Entry, records *record.Records) error {
	if err := st.to.guard(e.Path); err != nil {
		return err
	}
	s := &staged{e: e, records: records}
	if err := st.find(s); err != nil {
		return err
	}
	if e.Kind != snapshot.Opaque {
		st.number(s)
	}
	st.chunk = append(st.chunk, s)
	switch e.Kind {
	case snapshot.Opaque, snapshot.Delete:
		return nil
	case snapshot.Dir:
		s.now = st.own.DirMeta(e)
		if s.in != nil {
			return st.own.makeNew(s)
		}
		return nil
	}
	if err := st.to.space(e); err != nil {
		return err
	}
	if e.Kind == snapshot.File || e.Kind == snapshot.Link {
		st.own.staged[e.Path] = s
	}
	if inMemory(e) {
		held := *e
		s.e = &held
		st.dispatch(ctx, s)
		return nil
	}
	return st.own.makeStaged(ctx, s)
}

// inMemory reports whether an entry can be made by a worker.
func inMemory(e *snapshot.Entry) bool {
	return e.Kind == snapshot.File && e.Content != nil && int64(len(e.Content)) == e.Size
}

// dispatch gives a file to a worker, later.
func (st *stager) dispatch(ctx context.Context, s *staged) {
	if st.work == nil {
		n := runtime.GOMAXPROCS(0)
		st.work = make(chan []*staged, n)
		for range n {
			st.ended.Go(func() { st.runWorker(ctx) })
		}
	}
	st.begun.Add(1)
	st.batch, st.bytes = append(st.batch, s), st.bytes+s.e.Size
	if len(st.batch) >= batchFiles || st.bytes >= batchBytes {
		st.send()
	}
}

func (st *stager) send() {
	if len(st.batch) > 0 {
		st.work <- st.batch
		st.batch, st.bytes = nil, 0
	}
}

// runWorker is what a worker does.
func (st *stager) runWorker(ctx context.Context) {
	own := st.to.beside()
	for batch := range st.work {
		st.mu.Lock()
		err := st.failed
		st.mu.Unlock()
		for _, s := range batch {
			if err == nil {
				if err = own.makeStaged(ctx, s); err != nil {
					err = fmt.Errorf("%q: %w", s.e.Path, err)
				}
			}
			if s.e.Release != nil {
				s.e.Release()
			}
			s.e.Content, s.e.Open, s.e.Release = nil, nil, nil // what is made must not be held
		}
		st.mu.Lock()
		st.written, own.bytes = st.written+own.bytes, 0
		st.unprivileged, own.Unprivileged = st.unprivileged+own.Unprivileged, 0
		st.foreign.Add(own.Foreign)
		own.Foreign = metadata.Foreign{}
		if st.failed == nil {
			st.failed = err
		}
		st.mu.Unlock()
		st.begun.Add(-len(batch))
	}
}

// settle waits until all that was handed over is made, and returns the error
// after which nothing more is to be done.
func (st *stager) settle() error {
	st.send()
	st.begun.Wait()
	return st.failed
}

// change has the root changed by the chunk, when it was by the one before, while
// the next is staged.
func (st *stager) change(ctx context.Context) error {
	if err := errors.Join(st.settle(), st.wait()); err != nil {
		return err
	}
	chunk := st.chunk
	if len(chunk) > 0 {
		last := chunk[len(chunk)-1].e
		st.reach = last.Path
		if last.Kind != snapshot.Dir {
			st.reach = path.Dir(last.Path)
		}
		if st.new != nil {
			st.new.reach = st.reach
		}
	}
	done := make(chan error, 1)
	go func() { done <- st.to.flush(ctx, chunk) }()
	st.prev, st.chunk, st.new, st.most = done, nil, nil, min(2*st.most, MaxChunk)
	clear(st.own.staged)
	return nil
}

// wait waits until the root was changed by the chunk before.
func (st *stager) wait() error {
	if st.prev == nil {
		return nil
	}
	err := <-st.prev
	st.prev = nil
	return err
}

// finish has the root changed by the last chunk.
func (st *stager) finish(ctx context.Context) error {
	if err := st.change(ctx); err != nil {
		return err
	}
	return st.wait()
}

// end waits for all that was begun, also after a failure, and adds up what was
// counted.
func (st *stager) end() error {
	st.send()
	if st.work != nil {
		close(st.work)
	}
	st.ended.Wait()
	err := st.wait()
	st.to.res.Bytes = st.to.bytes + st.written + st.own.bytes
	st.to.Unprivileged += st.unprivileged + st.own.Unprivileged
	st.to.Foreign.Add(st.foreign)
	st.to.Foreign.Add(st.own.Foreign)
	return err
}

// makeStaged makes what is no directory in the stage directory. An error is one of the
// stream, or of clayer's own directory; what is the entry's alone is noted in s.
func (m *maker) makeStaged(ctx context.Context, s *staged) error {
	m.OtherXattrs = false
	made, err := m.make(ctx, m.stage, s.at, s.e)
	s.leftOut, s.err = err == nil && !made, err
	if s.err != nil && (inroot.IsHard(s.err) || errors.Is(s.err, unix.EROFS)) {
		return inroot.Hard(s.err)
	}
	s.now = record.MetaOf(s.e)
	if made && s.err == nil {
		return m.actual(s)
	}
	return nil
}

// actual corrects what is recorded of a file by what it has become: a link is
// its target, and without privilege not all could be set.
func (m *maker) actual(s *staged) error {
	switch s.e.Kind {
	case snapshot.File:
		sum := m.sum
		s.now.Sum = &sum
	case snapshot.Link:
		if to := m.target(s.e); to != nil {
			now := *to.now
			if to.e.Kind != snapshot.Link {
				now.Type = record.KindOf(to.e.Kind)
			}
			s.now = &now
			return nil
		}
	}
	if m.Privileged && s.e.Kind != snapshot.Link {
		return nil
	}
	var st unix.Stat_t
	if err := m.Fstatat(m.stage.FD, s.at, &st); err != nil {
		return err
	}
	s.now.Mode, s.now.UID, s.now.GID = st.Mode&0o7777, int(st.Uid), int(st.Gid)
	if s.e.Kind == snapshot.Link {
		s.now.Type = record.TypeOf(&st)
		s.now.Size, s.now.ModTime, s.now.Target = st.Size, time.Unix(st.Mtim.Unix()).UTC(), nil
	}
	if m.OtherXattrs {
		s.now.Xattrs = nil
	}
	return nil
}

// space refuses a large file that there is no space for, before a byte of it is
// written: a terabyte of zeros is a megabyte in a snapshot.
func (r *recorder) space(e *snapshot.Entry) error {
	const large = 64 << 20
	need := e.Size
	if e.Data != nil {
		need = 0
		for _, x := range e.Data {
			need += x.Length
		}
	}
	if need < large {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(r.stage.FD, &fs); err != nil {
		return nil // not worth failing for: the write reports it too
	}
	if free := int64(fs.Bavail) * fs.Bsize; need > free {
		return fmt.Errorf("it is %d bytes large, and %d are free: %w", need, free, unix.ENOSPC)
	}
	return nil
}
