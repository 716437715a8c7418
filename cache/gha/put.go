package gha

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
)

// tries is how often another key is tried because one is taken.
const tries = 8

var errContended = errors.New("other jobs keep storing snapshots of the same step")

// Put uploads a snapshot, unless the cache has one for machines like this.
func (s *Store) Put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	err := s.put(ctx, d, b)
	if err == nil || errors.Is(err, cache.ErrReadOnly) {
		return err
	}
	return fmt.Errorf("built, not pushed: %w", err)
}

// one returns what is held while a snapshot of a step is stored: two of one process need
// not take two places.
func (s *Store) one(k key.Key) *sync.Mutex {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.putting[k] == nil {
		s.putting[k] = &sync.Mutex{}
	}
	return s.putting[k]
}

func (s *Store) put(ctx context.Context, d cache.Descriptor, blob io.ReaderAt) error {
	if !valid(d) {
		return errors.New("no key, or no digest")
	}
	// What is not what it is said to be never leaves.
	if err := cache.Check(ctx, io.Discard, io.NewSectionReader(blob, 0, d.Size), d); err != nil {
		return err
	}
	if err := s.Writable(); err != nil {
		return err
	}
	one := s.one(d.Key)
	one.Lock()
	defer one.Unlock()
	if e, ok := s.noted(d); ok && d.Replaces == "" && same(e.Descriptor, d) {
		return nil
	}
	taken := make(map[string]bool)
	for range tries {
		there, err := s.places(ctx, d.Key)
		if err != nil {
			return err
		}
		place, edition, stores := there.free(d, taken)
		if !stores {
			return nil
		}
		name := entryName(d.Key, place, edition)
		e := entry{head: head{Descriptor: d}, place: place, edition: edition}
		err = s.store(ctx, name, e.head, blob)
		if refused := (*Error)(nil); errors.As(err, &refused) && refused.taken() {
			taken[name] = true
			continue
		}
		if err != nil {
			return err
		}
		s.note(e)
		if d.Replaces == cache.AllVariants {
			s.bury(ctx, d.Key, there, place)
		}
		return nil
	}
	return errContended
}

// free returns where a snapshot goes; false if there is one for the same machines. Keys that
// are taken are passed over.
func (p places) free(d cache.Descriptor, taken map[string]bool) (place, edition int, stores bool) {
	live := p.live()
	var there cache.Variants
	for _, e := range live {
		there = append(there, e.Descriptor)
	}
	i, stores := there.Place(d)
	if !stores || i < len(live) && same(there[i], d) && d.Replaces != cache.AllVariants {
		return 0, 0, false
	}
	next := make(map[int]int) // the edition that comes next, by place
	used := make(map[int]bool)
	for _, e := range p {
		next[e.place] = e.edition + 1
		used[e.place] = !e.Gone
	}
	for after := 0; ; after++ {
		for place := 1; place <= cache.MaxVariants; place++ {
			if i < len(live) && place != live[i].place || i == len(live) && used[place] {
				continue
			}
			if edition := next[place] + after; !taken[entryName(d.Key, place, edition)] {
				return place, edition, true
			}
		}
	}
}

// bury says at all places but one that there is no snapshot any more.
func (s *Store) bury(ctx context.Context, k key.Key, there places, but int) {
	for _, e := range there {
		if e.Gone || e.place == but {
			continue
		}
		if err := s.store(ctx, entryName(k, e.place, e.edition+1), head{Gone: true}, bytes.NewReader(nil)); err != nil {
			slog.Debug("a snapshot that was replaced stays", "err", err)
			return
		}
	}
}

// store makes an entry of a head and a snapshot.
func (s *Store) store(ctx context.Context, name string, h head, blob io.ReaderAt) error {
	data, err := h.bytes()
	if err != nil {
		return err
	}
	of := map[string]string{"key": name, "version": version}
	var made struct {
		OK      bool   `json:"ok"`
		URL     string `json:"signed_upload_url"`
		Message string `json:"message"`
	}
	if err := s.call(ctx, "CreateCacheEntry", of, &made); err != nil {
		return err
	}
	if err := s.denied(made.Message); err != nil {
		return err
	}
	if !made.OK {
		return &Error{Host: s.login.at.Host, Status: http.StatusConflict, said: s.clean(made.Message)}
	}
	size := int64(len(data)) + h.Size
	if err := s.upload(ctx, made.URL, joined{data, blob}, size); err != nil {
		if errors.Is(err, cache.ErrNotCached) { // the upload is gone, and it is the snapshot that was asked for
			err = fmt.Errorf("upload: %v", err)
		}
		return err
	}
	of["size_bytes"] = strconv.FormatInt(size, 10)
	var done struct {
		OK      bool   `json:"ok"`
		Message string `json:"message"`
	}
	err = s.call(ctx, "FinalizeCacheEntryUpload", of, &done)
	if err == nil && !done.OK {
		err = fmt.Errorf("%s does not take the upload: %s", s.login.at.Host, s.clean(done.Message))
	}
	if err == nil || s.refused.Writing() != nil || ctx.Err() != nil {
		return err
	}
	// Was it the answer that was lost, and is the entry there?
	if there, _, lost := s.ask(ctx, []string{name}); lost == nil && there == name {
		return nil
	}
	return fmt.Errorf("upload: %v", err)
}

// joined is a head and a snapshot.
type joined struct {
	head []byte
	blob io.ReaderAt
}

// ReadAt implements io.ReaderAt. It fills p: a caller asks for no more than there is.
func (j joined) ReadAt(p []byte, off int64) (n int, err error) {
	if off < int64(len(j.head)) {
		n = copy(p, j.head[off:])
	}
	if n < len(p) {
		var more int
		more, err = j.blob.ReadAt(p[n:], off+int64(n)-int64(len(j.head)))
		n += more
	}
	return n, err
}

// blocksAtOnce is how many blocks are under way at a time. Azure takes 50,000 of an upload.
const (
	blocksAtOnce = 4
	maxBlocks    = 50_000
)

// upload writes a blob of Azure: a large one in blocks, of which one that is cut off is sent
// again, and which are nothing before all are named in a list.
func (s *Store) upload(ctx context.Context, signed string, body io.ReaderAt, size int64) error {
	if size <= s.block {
		_, err := s.storage(ctx, stored{method: http.MethodPut, url: signed, body: body, size: size, header: http.Header{"X-Ms-Blob-Type": {"BlockBlob"}}})
		return err
	}
	each := max(s.block, (size+maxBlocks-1)/maxBlocks)
	var list struct {
		XMLName xml.Name `xml:"BlockList"`
		Latest  []string
	}
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(blocksAtOnce)
	for at := int64(0); at < size; at += each {
		block := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%08d", len(list.Latest))) // all of one length
		list.Latest = append(list.Latest, block)
		eg.Go(func() error {
			n := min(each, size-at)
			_, err := s.storage(gctx, stored{
				method: http.MethodPut, url: signed, query: "comp=block&blockid=" + url.QueryEscape(block),
				body: io.NewSectionReader(body, at, n), size: n,
			})
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	data, err := xml.Marshal(list)
	if err != nil {
		return err
	}
	_, err = s.storage(ctx, stored{
		method: http.MethodPut, url: signed, query: "comp=blocklist", body: bytes.NewReader(data), size: int64(len(data)),
		header: http.Header{"Content-Type": {"application/xml"}},
	})
	return err
}

// Complete checks that the snapshots of the layer are there. Nothing is stored: what is not
// listed is found by its steps.
func (s *Store) Complete(ctx context.Context, m cache.Manifest) error {
	if err := s.Writable(); err != nil {
		return err
	}
	err := forEach(ctx, m.Steps, func(ctx context.Context, d cache.Descriptor) error {
		if _, ok := s.noted(d); ok {
			return nil
		}
		there, err := s.places(ctx, d.Key)
		if err == nil && !slices.ContainsFunc(there.live(), func(e entry) bool { return e.VariantID() == d.VariantID() }) {
			err = fmt.Errorf("step %s: %w", d.Key.Short(), cache.ErrNotCached)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("complete %s: %w", m.Tag(), err)
	}
	return nil
}
