package unpack

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// A stager makes entries in the stage folder, a chunk at a time, while the root is
// changed by the chunk before. Files whose content is in memory are made by
// hands, on all cores: the order in which they come there is of no meaning.
type stager struct {
	to    *applier // changes the root by what is staged
	own   *applier // makes what no hand does
	chunk []*staged
	most  int        // entries of this chunk
	prev  chan error // what became of the chunk before; nil: that is known
	new   *newDir    // that entries are made in; nil: none
	reach string     // the folder in which the chunk before ended

	batch []*staged // that no hand has yet
	bytes int64     // of the content of batch
	work  chan []*staged
	ended sync.WaitGroup // of the hands
	begun sync.WaitGroup // an entry each

	mu           sync.Mutex
	failed       error // after which nothing is to be made
	written      int64
	unprivileged int
}

const (
	firstChunk = 2 << 10 // small, so that the root is changed soon

	// While it is not known whether a stream is sound, more is staged than a chunk.
	mostUnverified = 64 << 10

	// A batch is a few files, so that handing them over costs little, and holds
	// little memory.
	batchFiles = 64
	batchBytes = 1 << 20
)

func newStager(a *applier) *stager { return &stager{to: a, own: a.worker(), most: firstChunk} }

// hand returns an applier that can make things in the stage folder beside others:
// it has its own buffers and counts.
func (a *applier) worker() *applier {
	return &applier{
		Tree:     &Tree{Dirs: a.Dirs, privileged: a.privileged, uid: a.uid},
		stageDir: a.stageDir, born: a.born, inChunk: make(map[string]*staged),
	}
}

// stage makes an entry in the stage folder: all that takes time, or space, or
// can fail for what is in the stream, before the root is touched.
func (st *stager) stage(ctx context.Context, e *snapshot.Entry) error {
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
	if err := st.add(ctx, e); err != nil {
		return fmt.Errorf("%q: %w", e.Path, err)
	}
	return nil
}

func (st *stager) add(ctx context.Context, e *snapshot.Entry) error {
	if err := st.to.guard(e.Path); err != nil {
		return err
	}
	if e.Kind == snapshot.Dir && e.Implied {
		like, err := st.to.lower.dir(e.Path)
		if err != nil {
			return err
		}
		if like != nil {
			e = like
		}
	}
	s := &staged{e: e}
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
		s.now = st.own.dirMeta(e)
		if s.in != nil {
			return st.own.makeNew(s)
		}
		return nil
	}
	if err := st.to.room(e); err != nil {
		return err
	}
	if e.Kind == snapshot.File || e.Kind == snapshot.Link {
		st.own.inChunk[e.Path] = s
	}
	if inMemory(e) {
		held := *e
		s.e = &held
		st.dispatch(ctx, s)
		return nil
	}
	return st.own.makeStaged(ctx, s)
}

// canHand reports whether an entry can be made by a hand.
func inMemory(e *snapshot.Entry) bool {
	return e.Kind == snapshot.File && e.Content != nil && int64(len(e.Content)) == e.Size
}

// hand gives a file to a hand, later.
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

// labour is what a hand does.
func (st *stager) runWorker(ctx context.Context) {
	own := st.to.worker()
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
		st.written, own.res.Bytes = st.written+own.res.Bytes, 0
		st.unprivileged, own.Unprivileged = st.unprivileged+own.Unprivileged, 0
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
	clear(st.own.inChunk)
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
	st.to.res.Bytes += st.written + st.own.res.Bytes
	st.to.Unprivileged += st.unprivileged + st.own.Unprivileged
	return err
}

// makeStaged makes what is no folder in the stage folder. An error is one of the
// stream, or of clayer's own folder; what is the entry's alone is noted in s.
func (a *applier) makeStaged(ctx context.Context, s *staged) error {
	a.otherXattrs = false
	s.made, s.err = a.make(ctx, a.stageDir, s.at, s.e)
	if s.err != nil && (inroot.IsHard(s.err) || errors.Is(s.err, unix.EROFS)) {
		return inroot.Hard(s.err)
	}
	s.now = record.MetaOf(s.e)
	if s.made && s.err == nil {
		return a.actual(s)
	}
	return nil
}
