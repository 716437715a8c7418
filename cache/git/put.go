package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/branch"
)

// A change is what a Put or Complete adds to the branch.
type change struct {
	ctx    context.Context
	step   *stored     // nil: it is a layer
	blob   io.ReaderAt // of the step
	layer  *cache.Manifest
	chunks []chunk // the commits with the snapshot, each the next one's parent; none: not yet written
	reused []file  // pieces in them that the branch has, of other snapshots
	ended  bool
	done   chan error
}

// A chunk is a commit with pieces.
type chunk struct {
	commit  object
	parents []object
}

// end answers whoever asked for the change.
func (c *change) end(err error) {
	if !c.ended {
		c.ended = true
		c.done <- err
	}
}

// Put pushes a snapshot, unless the branch has it, with what other calls push at the
// same time.
//
// Once the repository has refused, the error is returned to all that follow without
// asking again.
func (s *Store) Put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	if err := s.put(ctx, d, b); err != nil {
		return fmt.Errorf("built, not pushed: %w", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	if d.Key.IsZero() {
		return errors.New("no key")
	}
	// What is not what it is said to be never leaves.
	if err := cache.Check(ctx, io.Discard, io.NewSectionReader(b, 0, d.Size), d); err != nil {
		return err
	}
	if _, err := branch.Marshal(d); err != nil {
		return err
	}
	return s.add(ctx, &change{step: &stored{Descriptor: d}, blob: b})
}

// Complete pushes the file of a layer.
func (s *Store) Complete(ctx context.Context, m cache.Manifest) error {
	if err := s.add(ctx, &change{layer: &m}); err != nil {
		return fmt.Errorf("complete %s: %w", m.Tag(), err)
	}
	return nil
}

// add waits until a change is pushed. The first that gets its turn pushes what has
// gathered meanwhile.
func (s *Store) add(ctx context.Context, c *change) error {
	if err := s.refused.Writing(); err != nil {
		return err
	}
	c.ctx, c.done = ctx, make(chan error, 1)
	s.mu.Lock()
	s.queue = append(s.queue, c)
	s.mu.Unlock()
	for {
		select {
		case err := <-c.done:
			return err
		case s.turn <- struct{}{}:
			s.pushQueue(ctx)
			<-s.turn
		case <-ctx.Done():
			if s.leave(c) {
				return context.Cause(ctx)
			}
			return <-c.done // its blob is being read
		}
	}
}

// leave removes a change from the queue. It reports false if it is there no longer.
func (s *Store) leave(c *change) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, c)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	return i >= 0
}

// pushQueue pushes the changes that one push takes. If it ends with ctx, the others are
// for the next one.
func (s *Store) pushQueue(ctx context.Context) {
	batch := s.nextPush()
	if len(batch) == 0 {
		return
	}
	err := s.refused.Writing()
	if err == nil {
		err = s.pushBatch(ctx, batch)
	}
	var again []*change
	for _, c := range batch {
		if !c.ended && err != nil && ctx.Err() != nil && c.ctx.Err() == nil {
			again = append(again, c)
			continue
		}
		c.end(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(again, s.queue...)
}

// nextPush takes changes from the queue: at least one, and no more bytes than a push has.
func (s *Store) nextPush() []*change {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, bytes := 0, int64(0)
	for _, c := range s.queue {
		if c.step != nil {
			if bytes += c.step.Size; n > 0 && bytes > s.opt.PushSize {
				break
			}
		}
		n++
	}
	batch := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	return batch
}
