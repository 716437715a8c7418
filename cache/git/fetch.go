package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/clayer/clayer/cache"
)

const (
	// fetches is how many are under way at a time.
	fetches = 3

	// together is how many bytes of snapshots a fetch has at most, unless one
	// snapshot has more. A fetch can be read when all of it has arrived.
	together = 64 << 20

	// gather is how long a fetch waits for others to join.
	gather = 10 * time.Millisecond
)

// A want is a snapshot that is to be fetched.
type want struct {
	st    *stored
	write func(io.Reader) error // gets the bytes
	ctx   context.Context
	done  chan error
}

// large reports whether a piece of it is fetched alone.
func (w *want) large() bool {
	return slices.ContainsFunc(w.st.Pieces, func(p piece) bool { return p.Size >= alone })
}

// Fetch fetches the objects of a snapshot, together with those of other calls. It is
// complete, and not verified.
func (s *Store) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	x, err := s.read(ctx)
	if err != nil {
		return err
	}
	st, ok := x.find(d)
	if !ok {
		return missing(d)
	}
	return b.Fill(s.opt.Temp, d, func(w cache.Writer) error {
		at := int64(0)
		want := &want{st: st, ctx: ctx, done: make(chan error, 1), write: func(r io.Reader) error {
			n, err := io.Copy(io.NewOffsetWriter(w, at), r)
			at += n
			return err
		}}
		s.mu.Lock()
		s.wanted = append(s.wanted, want)
		// A second one is for what the first does not take.
		start := s.active == 0 || s.active < fetches && !s.whole && (want.large() || len(s.batch()) < len(s.wanted))
		if start {
			s.active++
		}
		s.mu.Unlock()
		if start {
			go s.fetchAll()
		}
		return <-want.done // soon after ctx ends
	})
}

// fetchAll fetches what is wanted until nothing is left.
func (s *Store) fetchAll() {
	time.Sleep(gather)
	for {
		batch := s.nextWanted()
		if len(batch) == 0 {
			return
		}
		s.fetchBatch(batch)
	}
}

// nextWanted takes the snapshots for a fetch. Without any, the fetches are one fewer.
func (s *Store) nextWanted() []*want {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := s.batch()
	s.wanted = slices.DeleteFunc(s.wanted, func(w *want) bool { return slices.Contains(batch, w) })
	if len(batch) == 0 {
		s.active--
	}
	return batch
}

// batch returns what of the wanted snapshots one fetch takes: small ones together, with one
// that has a large piece. Its caller holds s.mu.
func (s *Store) batch() (batch []*want) {
	large, bytes := false, int64(0)
	for _, w := range s.wanted {
		if len(batch) > 0 && !s.whole && (large && w.large() || bytes+w.st.Size > together) {
			continue
		}
		batch, large, bytes = append(batch, w), large || w.large(), bytes+w.st.Size
	}
	return batch
}

// fetchBatch fetches snapshots, and ends each of the calls that asked for them.
func (s *Store) fetchBatch(batch []*want) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	// It ends when the last of the calls does.
	for _, w := range batch {
		stop := context.AfterFunc(w.ctx, func() {
			for _, other := range batch {
				if other.ctx.Err() == nil {
					return
				}
			}
			cancel(context.Cause(w.ctx))
		})
		defer stop()
	}
	errs, err := s.fetch(ctx, batch)
	if isGone(err) && len(batch) > 1 {
		for _, w := range batch { // the others may be there
			s.fetchBatch([]*want{w})
		}
		return
	}
	for i, w := range batch {
		switch {
		case err == nil:
			w.done <- errs[i]
		case w.ctx.Err() != nil:
			w.done <- context.Cause(w.ctx)
		case isGone(err):
			w.done <- fmt.Errorf("%w: the server has it no longer", missing(w.st.Descriptor))
		default:
			w.done <- err
		}
	}
}

// fetch fetches snapshots and writes each to where it belongs. It returns what became
// of each.
func (s *Store) fetch(ctx context.Context, batch []*want) ([]error, error) {
	if err := s.refused.Reading(); err != nil {
		return nil, err
	}
	r, err := s.open()
	if err != nil {
		return nil, err
	}
	defer r.close()
	for _, run := range runs(batch) {
		err := s.try(ctx, reading, func(ctx context.Context) error {
			if s.fetchesWhole(nil) {
				return r.fetchBranch(ctx, s.addr.Branch)
			}
			err := r.fetchObjects(ctx, run.ids, run.limit)
			if s.fetchesWhole(err) {
				err = r.fetchBranch(ctx, s.addr.Branch)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if s.fetchesWhole(nil) {
			break
		}
	}
	errs := make([]error, len(batch))
	for i, w := range batch {
		errs[i] = r.copy(w.ctx, w)
	}
	return errs, nil
}

// A run is the objects that are fetched at a time.
type run struct {
	ids   []object
	limit int64 // bytes that the repository has then, at most
}

// alone is from which size on an object is fetched without another such: a server looks
// for what two have in common, which takes it seconds for each pair, and there is nothing.
const alone = 4 << 20

// runs returns the objects of snapshots: the small ones together, with the first large one.
func runs(batch []*want) []run {
	var small, large []object
	limit := int64(maxFile)
	for _, w := range batch {
		limit += 2 * w.st.Size
		for _, p := range w.st.Pieces {
			if p.Size < alone {
				small = append(small, p.ID)
			} else {
				large = append(large, p.ID)
			}
		}
	}
	if len(large) > 0 {
		small, large = append(small, large[0]), large[1:]
	}
	var all []run
	if len(small) > 0 {
		all = append(all, run{small, limit})
	}
	for _, id := range large {
		all = append(all, run{[]object{id}, limit})
	}
	return all
}

// fetchesWhole reports whether the server gives no objects by their ids: it said so now,
// or before.
func (s *Store) fetchesWhole(err error) bool {
	var e *Error
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whole = s.whole || errors.As(err, &e) && e.kind == old
	return s.whole
}

// copy writes the pieces of a snapshot to where it belongs.
func (r *repo) copy(ctx context.Context, w *want) error {
	if len(w.st.Pieces) == 0 {
		return nil
	}
	ids := make([]object, len(w.st.Pieces))
	for i, p := range w.st.Pieces {
		ids[i] = p.ID
	}
	return r.contents(ctx, ids, func(i int, kind string, size int64, content io.Reader) error {
		if kind != "blob" || size != w.st.Pieces[i].Size {
			return missing(w.st.Descriptor)
		}
		return w.write(content)
	})
}
