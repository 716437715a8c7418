package unpack

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/rootfs/inroot"
	"github.com/clayer/clayer/solver/rootfs/record"
)

// hands make staged files whose content is in memory, on all cores: the order in
// which they come into the stage folder is of no meaning. What needs the others,
// and all that is done to the root, stays with the applier.
type hands struct {
	batch []*staged // that no hand has yet
	bytes int64     // of the content of batch
	work  chan []*staged
	ended sync.WaitGroup
	begun sync.WaitGroup // an entry each

	mu           sync.Mutex
	failed       error // after which nothing is to be made
	written      int64
	unprivileged int
}

// A batch is a few files, so that handing them over costs little, and holds
// little memory.
const (
	batchFiles = 64
	batchBytes = 1 << 20
)

// hand gives a file to a hand, later.
func (a *applier) hand(ctx context.Context, s *staged) {
	h := a.hands
	if h == nil {
		h = &hands{work: make(chan []*staged, runtime.GOMAXPROCS(0))}
		a.hands = h
		for range runtime.GOMAXPROCS(0) {
			h.ended.Go(func() { a.labour(ctx, h) })
		}
	}
	h.begun.Add(1)
	h.batch, h.bytes = append(h.batch, s), h.bytes+s.e.Size
	if len(h.batch) >= batchFiles || h.bytes >= batchBytes {
		h.send()
	}
}

func (h *hands) send() {
	if len(h.batch) > 0 {
		h.work <- h.batch
		h.batch, h.bytes = nil, 0
	}
}

// settle waits until all that was handed over is made, and returns the error
// after which nothing more is to be done.
func (a *applier) settle() error {
	h := a.hands
	if h == nil {
		return nil
	}
	h.send()
	h.begun.Wait()
	a.res.Bytes, h.written = a.res.Bytes+h.written, 0
	a.Unprivileged, h.unprivileged = a.Unprivileged+h.unprivileged, 0
	return h.failed
}

// endHands waits until the hands have ended.
func (a *applier) endHands() {
	if h := a.hands; h != nil {
		h.send()
		close(h.work)
		h.ended.Wait()
		a.hands = nil
	}
}

// labour is what a hand does: it has its own buffers and counts, and shares the stage folder.
func (a *applier) labour(ctx context.Context, h *hands) {
	own := &applier{Tree: &Tree{privileged: a.privileged, uid: a.uid}, stageDir: a.stageDir, born: a.born}
	for batch := range h.work {
		h.mu.Lock()
		failed := h.failed
		h.mu.Unlock()
		var err error
		for _, s := range batch {
			if failed == nil && err == nil {
				if err = own.makeStaged(ctx, s); err != nil {
					err = fmt.Errorf("%q: %w", s.e.Path, err)
				}
			}
			s.e.Content, s.e.Open = nil, nil // what is made must not be held
		}
		h.mu.Lock()
		h.written, own.res.Bytes = h.written+own.res.Bytes, 0
		h.unprivileged, own.Unprivileged = h.unprivileged+own.Unprivileged, 0
		if h.failed == nil {
			h.failed = err
		}
		h.mu.Unlock()
		h.begun.Add(-len(batch))
	}
}

// makeStaged makes what is no folder in the stage folder. An error is one of the
// stream, or of clayer's own folder; what is the entry's alone is noted in s.
func (a *applier) makeStaged(ctx context.Context, s *staged) error {
	denied := a.Unprivileged
	name := strconv.Itoa(s.n)
	s.made, s.err = a.make(ctx, a.stageDir, name, s.e)
	if s.err != nil && (inroot.IsHard(s.err) || errors.Is(s.err, unix.EROFS)) {
		return inroot.Hard(s.err)
	}
	s.now = record.MetaOf(s.e)
	if s.made && s.err == nil {
		return a.actual(s, name, denied)
	}
	return nil
}

// canHand reports whether an entry can be made by a hand.
func canHand(e *snapshot.Entry) bool {
	return e.Kind == snapshot.File && int64(len(e.Content)) == e.Size
}
