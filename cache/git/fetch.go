package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/branch"
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
	st     *stored
	pieces []placed                          // of it that are fetched
	write  func(at int64, r io.Reader) error // gets the bytes of each
	ctx    context.Context
	done   chan error
}

// A placed piece is one that goes to an offset of the snapshot.
type placed struct {
	piece
	at int64
}

// size returns how many bytes are fetched.
func (w *want) size() (n int64) {
	for _, p := range w.pieces {
		n += p.Size
	}
	return n
}

// large reports whether a piece of it is fetched alone.
func (w *want) large() bool {
	return slices.ContainsFunc(w.pieces, func(p placed) bool { return p.Size >= alone })
}

// Fetch fetches the objects of a snapshot, together with those of other calls. It is
// complete, and not verified.
func (s *Store) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	x, err := s.read(ctx)
	if err != nil {
		return err
	}
	st, ok := x.Find(d)
	if !ok {
		return missing(d)
	}
	return b.Fill(s.opt.Temp, d, func(w cache.Writer) error {
		pieces, err := missingPieces(ctx, st, w)
		if err != nil || len(pieces) == 0 {
			return err
		}
		want := &want{st: st, pieces: pieces, ctx: ctx, done: make(chan error, 1), write: func(at int64, r io.Reader) error {
			_, err := io.Copy(io.NewOffsetWriter(w, at), r)
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

// missingPieces returns the pieces of a snapshot that are fetched, and copies the others: all
// frames of these are near. Where one is not after all, the blob is corrupt, and fetched
// again as a whole.
func missingPieces(ctx context.Context, st *stored, w cache.Writer) (missing []placed, err error) {
	at := int64(0)
	for _, p := range st.Pieces {
		from := w.From(at)
		ranges, composed := from.Missing(p.Size)
		if !composed || len(ranges) > 0 {
			missing = append(missing, placed{p, at})
		} else if lost, err := from.Copy(ctx, p.Size); err != nil {
			return nil, err
		} else if len(lost) > 0 {
			return nil, &cache.CorruptError{Want: st.Digest, WantSize: st.Size}
		}
		at += p.Size
	}
	return missing, nil
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
		if len(batch) > 0 && !s.whole && (large && w.large() || bytes+w.size() > together) {
			continue
		}
		batch, large, bytes = append(batch, w), large || w.large(), bytes+w.size()
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
	if err := s.fetchRuns(ctx, r, runs(batch)); err != nil {
		return nil, err
	}
	errs := make([]error, len(batch))
	for i, w := range batch {
		errs[i] = r.copy(w.ctx, w)
	}
	return errs, nil
}

// fetchRuns fetches objects: the first of them show what the server can, then several at a
// time.
func (s *Store) fetchRuns(ctx context.Context, r *repo, all []run) error {
	if len(all) == 0 {
		return nil
	}
	if err := s.fetchRun(ctx, r, all[0]); err != nil || s.fetchesWhole(nil) {
		return err
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(fetches)
	for _, run := range all[1:] {
		eg.Go(func() error { return s.fetchRun(ctx, r, run) })
	}
	return eg.Wait()
}

func (s *Store) fetchRun(ctx context.Context, r *repo, run run) error {
	return s.try(ctx, reading, func(ctx context.Context) error {
		if s.fetchesWhole(nil) {
			return r.fetchBranch(ctx, s.addr.Branch)
		}
		err := r.fetchObjects(ctx, run.ids, run.limit)
		if s.fetchesWhole(err) {
			err = r.fetchBranch(ctx, s.addr.Branch)
		}
		return err
	})
}

// A run is the objects that are fetched at a time.
type run struct {
	ids   []object
	limit int64 // bytes that the repository has then, at most
}

// alone is from which size on an object is fetched without another such: a server looks
// for what two have in common, which takes it seconds for each pair, and there is nothing.
const alone = 2 << 20

// runs returns the objects of snapshots: the small ones together, with the first large one.
func runs(batch []*want) []run {
	var small, large []object
	limit := int64(branch.MaxFile)
	for _, w := range batch {
		limit += 2 * w.size()
		for _, p := range w.pieces {
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
	if len(w.pieces) == 0 {
		return nil
	}
	ids := make([]object, len(w.pieces))
	for i, p := range w.pieces {
		ids[i] = p.ID
	}
	return r.contents(ctx, ids, func(i int, kind string, size int64, content io.Reader) error {
		if kind != "blob" || size != w.pieces[i].Size {
			return missing(w.st.Descriptor)
		}
		return w.write(w.pieces[i].at, content)
	})
}
