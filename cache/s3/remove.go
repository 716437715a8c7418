package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
)

// Remove deletes layers, the steps that no other layer has, and the blobs that nothing
// names then; of what interrupted sessions left, what is two weeks old. Layers go first,
// then steps, then blobs: what is cut off leaves nothing that names what is missing.
func (s *Store) Remove(ctx context.Context, ms []cache.Manifest) (int64, error) {
	if err := s.login.readOnly(); err != nil {
		return 0, err
	}
	layers, err := s.layers(ctx)
	if err != nil {
		return 0, err
	}
	goes := make(map[string]bool)
	for _, m := range ms {
		goes[layerName(m.Tag())] = true
	}
	var remove []string
	var mayGo []cache.Descriptor
	needed := make(map[digest.Digest]bool)
	needs := make(map[string]bool) // the steps of layers that stay, by the object of the first
	for _, l := range layers {
		if goes[l.name] {
			remove = append(remove, l.name)
			mayGo = append(mayGo, l.Steps...)
			continue
		}
		for _, d := range l.Steps {
			needed[d.Digest], needs[stepName(d.Key)] = true, true
		}
	}
	// A call that names no layer that is there changes nothing.
	if len(remove) == 0 {
		return 0, nil
	}
	if err := s.deleteAll(ctx, remove); err != nil {
		return 0, err
	}
	gone := make(map[string]bool)
	removable := make(map[digest.Digest]bool)
	for _, d := range mayGo {
		if !needs[stepName(d.Key)] {
			gone[stepName(d.Key)] = true
		}
		removable[d.Digest] = true
	}
	objects, err := s.list(ctx, keysDir)
	if err != nil {
		return 0, err
	}
	steps, err := s.readSteps(ctx, objects)
	if err != nil {
		return 0, err
	}
	remove = nil
	for _, st := range steps {
		if first := stepName(st.Key); gone[first] || !needs[first] && time.Since(st.at) > abandoned {
			remove = append(remove, st.name)
			removable[st.Digest] = true
		} else {
			needed[st.Digest] = true // a session may take it up
		}
	}
	if err := s.deleteAll(ctx, remove); err != nil {
		return 0, err
	}
	s.mu.Lock()
	clear(s.held)
	s.mu.Unlock()
	// Other sessions may have stored steps meanwhile that have the same bytes.
	if objects, err = s.newer(ctx, objects); err != nil {
		return 0, err
	}
	if steps, err = s.readSteps(ctx, objects); err != nil {
		return 0, err
	}
	for _, st := range steps {
		needed[st.Digest] = true
	}
	freed, err := s.removeBlobs(ctx, removable, needed)
	if err == nil {
		s.abortUploads(ctx)
	}
	return freed, err
}

// newer lists the objects of steps that were not there before.
func (s *Store) newer(ctx context.Context, before []object) (after []object, err error) {
	all, err := s.list(ctx, keysDir)
	known := make(map[object]bool, len(before))
	for _, o := range before {
		known[o] = true
	}
	for _, o := range all {
		if !known[o] {
			after = append(after, o)
		}
	}
	return after, err
}

// removeBlobs deletes blobs that are removable, or that nothing has named for long, unless
// they are needed. It returns how many bytes they had.
func (s *Store) removeBlobs(ctx context.Context, removable, needed map[digest.Digest]bool) (int64, error) {
	blobs, err := s.list(ctx, blobsDir)
	if err != nil {
		return 0, err
	}
	var freed atomic.Int64
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for _, o := range blobs {
		d := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimPrefix(o.name, blobsDir))
		if !cache.ValidDigest(d) || needed[d] || !removable[d] && time.Since(o.at) < abandoned {
			continue
		}
		eg.Go(func() error {
			err := s.delete(ctx, o.name)
			if err == nil {
				freed.Add(o.size)
			}
			return err
		})
	}
	err = eg.Wait()
	return freed.Load(), err
}

func (s *Store) deleteAll(ctx context.Context, names []string) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for _, name := range names {
		eg.Go(func() error { return s.delete(ctx, name) })
	}
	return eg.Wait()
}

// delete deletes an object. One that is not there is no error.
func (s *Store) delete(ctx context.Context, name string) error {
	_, err := s.send(ctx, removing, request{method: http.MethodDelete, name: name})
	if errors.Is(err, cache.ErrNotCached) {
		return nil
	}
	return err
}

// abortUploads ends what sessions that were cut off left of uploads in parts.
func (s *Store) abortUploads(ctx context.Context) {
	ans, err := s.send(ctx, listing, request{method: http.MethodGet, query: url.Values{"uploads": {""}, "prefix": {s.at.object(blobsDir)}}})
	var list struct {
		Upload []struct {
			Key, UploadId string
			Initiated     time.Time
		}
	}
	if err == nil {
		err = xml.Unmarshal(ans.Body, &list)
	}
	if err != nil {
		slog.Debug("uploads in parts are not listed", "err", err) // not every service does that
		return
	}
	for _, u := range list.Upload {
		name, ok := strings.CutPrefix(u.Key, s.at.object(""))
		if !ok || time.Since(u.Initiated) < abandoned {
			continue
		}
		if err := s.abort(ctx, name, u.UploadId); err != nil {
			slog.Debug("the parts of an upload stay", "err", err)
		}
	}
}
