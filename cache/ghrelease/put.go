package ghrelease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/ctxio"
)

// Put uploads a snapshot into a draft of its layer's name, and notes it in the
// draft's text. One that a release has already is not uploaded again.
//
// Once GitHub has refused (no permission, no commit), the error is returned to
// all that follow without asking again.
func (s *Store) Put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	if err := s.put(ctx, d, b); err != nil {
		return fmt.Errorf("built, not pushed: %w", s.refuse(err))
	}
	return nil
}

// refuse remembers an error that all further writes would get too. A rate limit
// is remembered by the client, until it ends.
func (s *Store) refuse(err error) error {
	if transfer.Unreachable(err) || github.Refuses(err) || github.Is(err, github.NoToken) || github.Is(err, github.NotFound) || github.Is(err, github.Empty) {
		s.refused.Write(err, transfer.Pause(err))
	}
	return err
}

// ready asks what a first write needs to know.
func (s *Store) ready(ctx context.Context) error {
	if err := s.Writable(); err != nil {
		return err
	}
	if err := s.list(ctx); err != nil {
		return s.failed(err)
	}
	s.public.Do(func() {
		if info, err := s.gh.Info(ctx, s.repo); err == nil && !info.Private {
			s.opt.Warn(s.repo.String() + " is public: everyone can read the snapshots that are pushed there")
		}
	})
	return nil
}

func (s *Store) put(ctx context.Context, d cache.Descriptor, blob io.ReaderAt) error {
	if d.Key.IsZero() {
		return errors.New("no key")
	}
	st, err := s.split(ctx, d, blob)
	if err != nil {
		return err
	}
	// One at a time: GitHub requires it, and a draft's text is read and written.
	done, err := s.write(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := s.ready(ctx); err != nil {
		return err
	}
	var there cache.Variants
	id := d.VariantID()
	for _, loc := range s.variants(d.Key) {
		if loc.step.Digest == d.Digest && loc.step.Size == d.Size && loc.step.VariantID() == id {
			s.locate(loc)
			return nil
		}
		there = append(there, loc.step.Descriptor)
	}
	// Nothing is deleted: of more than are looked at, the oldest are not.
	if _, stores := there[:min(len(there), cache.MaxVariants)].Place(d); !stores {
		return nil
	}
	if d.Replaces != "" {
		st.Again = s.gh.Now().UTC()
	}
	for range 3 {
		var h *held
		if h, err = s.draft(ctx, d.Layer, st); err != nil {
			return err
		}
		err = s.fill(ctx, h, st, blob)
		if err == nil {
			s.locate(location{step: *st, id: h.ID})
			return nil
		}
		// Another session published the draft, or removed it, or has other
		// bytes of the step in it: another one, then.
		gone := github.Is(err, github.NotFound)
		if !gone && !github.Is(err, github.Immutable) && !errors.Is(err, github.ErrOtherBytes) && !errors.Is(err, errFull) {
			return err
		}
		if err := s.refresh(ctx, h, gone); err != nil {
			return err
		}
	}
	return err
}

// split reads a blob once: it checks the digest and says how it will be stored.
func (s *Store) split(ctx context.Context, d cache.Descriptor, blob io.ReaderAt) (*step, error) {
	st := &step{Descriptor: d}
	all := digest.Canonical.Digester()
	var got int64
	for n := 1; got < d.Size || n == 1; n++ {
		one := digest.Canonical.Digester()
		size := min(s.opt.PartSize, d.Size-got)
		read, err := io.Copy(io.MultiWriter(all.Hash(), one.Hash()), ctxio.Reader(ctx, io.NewSectionReader(blob, got, size)))
		if err != nil {
			return nil, err
		}
		if got += read; read < size {
			return nil, &cache.CorruptError{Want: d.Digest, WantSize: d.Size, GotSize: got}
		}
		if d.Size > s.opt.PartSize {
			st.Parts = append(st.Parts, part{fileName(d.Key, n), size, one.Digest()})
		}
	}
	if all.Digest() != d.Digest {
		return nil, &cache.CorruptError{Want: d.Digest, Got: all.Digest(), WantSize: d.Size, GotSize: got}
	}
	return st, nil
}

// draft returns a draft that takes a step of a layer: one that this or an
// earlier session left, else a new one.
func (s *Store) draft(ctx context.Context, name string, st *step) (*held, error) {
	for _, h := range s.all() {
		if h.Draft && h.Name == name && len(h.Assets)+len(st.files()) < github.MaxAssets && h.takes(st) {
			return h, nil
		}
	}
	rec := record{Name: name, Steps: make(map[key.Key]*step)}
	text, err := rec.body()
	if err != nil {
		return nil, err
	}
	// The tag is of the first step; it is that of the layer when it is whole.
	tag := cache.Tag(name, st.Key)
	title := fmt.Sprintf("%s %s, not whole yet (%s)", st.Created.UTC().Format("2006-01-02 15:04:05"), tag, unique())
	r, err := s.gh.NewDraft(ctx, s.repo, github.Change{Tag: &tag, Title: &title, Body: &text})
	if err != nil {
		return nil, err
	}
	h := &held{*r, rec}
	s.remember(h)
	return h, nil
}

// takes reports whether a step's files get along with those in the release.
func (h *held) takes(st *step) bool {
	for _, f := range st.files() {
		if a := h.asset(f.Name); a != nil && a.Whole() && (a.Size != f.Size || a.Digest != "" && a.Digest != f.Digest) {
			return false
		}
	}
	rec := h.record
	rec.Steps = maps.Clone(h.Steps)
	rec.Steps[st.Key] = st
	_, err := rec.body()
	return err == nil
}

func (s *Store) remember(h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releases[h.ID] = h
}

// change replaces what is known of a release.
func (s *Store) change(h *held, f func(h *held)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(h)
}

// fill uploads a step's files, and then says in the text that it is there.
func (s *Store) fill(ctx context.Context, h *held, st *step, blob io.ReaderAt) error {
	var at int64
	for _, f := range st.files() {
		if err := s.upload(ctx, h, f, io.NewSectionReader(blob, at, f.Size)); err != nil {
			return err
		}
		at += f.Size
	}
	rec := h.record
	rec.Steps = maps.Clone(h.Steps)
	rec.Steps[st.Key] = st
	text, err := rec.body()
	if err != nil {
		return err
	}
	// What another session noted meanwhile stays: a draft may be shared.
	if now, err := s.gh.Release(ctx, s.repo, h.ID); err != nil {
		return err
	} else if theirs, ok := parseBody(now.Body); ok {
		for k, other := range theirs.Steps {
			if rec.Steps[k] == nil {
				rec.Steps[k] = other
			}
		}
		if rec.Layer == nil {
			rec.Layer = theirs.Layer
		}
		if text, err = rec.body(); err != nil {
			return err
		}
	}
	if _, err := s.gh.Edit(ctx, s.repo, h.ID, github.Change{Body: &text}); err != nil {
		return err
	}
	s.change(h, func(h *held) { h.record, h.Body = rec, text })
	return nil
}

// upload uploads one file into a release, unless it is there.
func (s *Store) upload(ctx context.Context, h *held, p part, blob io.ReaderAt) error {
	f := github.File{Name: p.Name, Digest: p.Digest, Size: p.Size, Bytes: blob}
	a, err := s.gh.Upload(ctx, s.repo, &h.Release, f)
	if err != nil {
		return err
	}
	s.change(h, func(h *held) {
		if h.asset(a.Name) == nil {
			h.Assets = append(h.Assets, a)
		}
	})
	return nil
}

// refresh asks what became of a release that is not as we knew it.
func (s *Store) refresh(ctx context.Context, h *held, gone bool) error {
	if !gone {
		r, err := s.gh.Release(ctx, s.repo, h.ID)
		if err == nil {
			if now, ok := hold(*r); ok {
				s.remember(now)
				return nil
			}
		} else if !github.Is(err, github.NotFound) {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.releases, h.ID)
	return nil
}
