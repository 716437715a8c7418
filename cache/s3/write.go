package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache"
)

// A marker says that there is a store.
type marker struct {
	Version int `json:"version"`

	// Conditions says that the service honours If-None-Match and If-Match. Some refuse
	// them, and some do as if they were not there.
	Conditions bool `json:"conditions"`
}

// readMarker reads the marker. The caller holds s.asking.
func (s *Store) readMarker(ctx context.Context) error {
	ans, err := s.send(ctx, reading, request{method: http.MethodGet, name: markerName})
	if err != nil {
		return err
	}
	var m marker
	if err := json.Unmarshal(ans.Body, &m); err != nil {
		return fmt.Errorf("%w: %s: %w", cache.ErrNotCached, markerName, err)
	}
	s.mark, s.denied = &m, nil
	return nil
}

// begin reads the marker, and writes one where there is none: that also finds out, once
// for a store, whether the service has conditions.
func (s *Store) begin(ctx context.Context) error {
	s.asking.Lock()
	defer s.asking.Unlock()
	if s.mark != nil {
		return nil
	}
	err := s.readMarker(ctx)
	if e := (*Error)(nil); err == nil || !errors.Is(err, cache.ErrNotCached) && !(errors.As(err, &e) && e.Status == http.StatusForbidden && !e.refusesLogin()) {
		return err
	}
	m := marker{Version: 1}
	// No other session may take it that there are conditions before that is known.
	_, err = s.putJSON(ctx, markerName, m, isNew)
	if err != nil && !failed(err) {
		if !unconditional(err) {
			return err
		}
		if _, err := s.putJSON(ctx, markerName, m, nil); err != nil {
			return err
		}
		s.mark, s.denied = &m, nil
		return nil
	}
	if _, err := s.putJSON(ctx, markerName, m, isNew); failed(err) {
		m.Conditions = true
		_, err = s.putJSON(ctx, markerName, m, nil)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	s.mark, s.denied = &m, nil
	return nil
}

// isNew is the condition that an object is not there.
var isNew = http.Header{"If-None-Match": {"*"}}

// isStill returns the condition that an object is as it was read.
func isStill(etag string) http.Header { return http.Header{"If-Match": {etag}} }

func (s *Store) putJSON(ctx context.Context, name string, v any, condition http.Header) (etag string, err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	return s.putBytes(ctx, request{method: http.MethodPut, name: name, header: condition}, data)
}

func (s *Store) putBytes(ctx context.Context, r request, data []byte) (etag string, err error) {
	sum := sha256.Sum256(data)
	r.body, r.size, r.sum = bytes.NewReader(data), int64(len(data)), hex.EncodeToString(sum[:])
	header := http.Header{"Content-Type": {"application/json"}}
	for name, values := range r.header {
		header[name] = values
	}
	r.header = header
	ans, err := s.send(ctx, writing, r)
	if err != nil {
		return "", err
	}
	return ans.Header.Get("ETag"), nil
}

// write writes an object on a condition, where the service has conditions.
func (s *Store) write(ctx context.Context, name string, v any, condition http.Header) error {
	if !s.conditions() {
		condition = nil
	}
	_, err := s.putJSON(ctx, name, v, condition)
	if condition != nil && unconditional(err) {
		s.asking.Lock()
		s.mark = &marker{Version: 1}
		s.asking.Unlock()
		_, err = s.putJSON(ctx, name, v, nil)
	}
	return err
}

func (s *Store) conditions() bool {
	s.asking.Lock()
	defer s.asking.Unlock()
	return s.mark != nil && s.mark.Conditions
}

// tries is how often a change is made again because another session was faster.
const tries = 8

var errChanged = errors.New("it changed while it was read")

var errContended = errors.New("other sessions keep changing the same object")

// Put uploads a snapshot, unless the bucket has it, and then what describes it.
//
// Once the service has refused, the error is returned to all that follow without asking
// again.
func (s *Store) Put(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	err := s.put(ctx, d, b)
	if err == nil || errors.Is(err, cache.ErrReadOnly) {
		return err
	}
	return fmt.Errorf("built, not pushed: %w", s.refuse(err))
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
	if s.knows(d) && d.Replaces == "" {
		return nil
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	for range tries {
		p, err := s.place(ctx, d)
		if errors.Is(err, errChanged) {
			continue
		}
		if err != nil || len(p.objects) == 0 {
			return err
		}
		if err := s.upload(ctx, d, blob); err != nil {
			return err
		}
		for _, o := range p.objects {
			if err = s.write(ctx, o.name, d, o.condition); err != nil {
				break
			}
		}
		if failed(err) {
			continue
		}
		if err != nil {
			return err
		}
		for _, name := range p.gone {
			if err := s.delete(ctx, name); err != nil {
				slog.Debug("a snapshot that was replaced stays", "err", err)
				break
			}
		}
		s.know(d)
		return nil
	}
	return errContended
}

// A placing is what a Put has to do.
type placing struct {
	objects []conditional // that describe the snapshot then; none: it is not stored
	gone    []string      // what it takes the place of
}

type conditional struct {
	name      string
	condition http.Header
}

// place finds out what there is of a step. Of most there is nothing, or the first snapshot
// is of the same variant.
func (s *Store) place(ctx context.Context, d cache.Descriptor) (p placing, err error) {
	first, etag, err := s.step(ctx, stepName(d.Key), d.Key)
	if err != nil && !errors.Is(err, cache.ErrNotCached) {
		return p, err
	}
	condition := isNew
	if etag != "" {
		condition = isStill(etag) // it is there, whatever it is
	}
	p.objects = []conditional{{stepName(d.Key), condition}}
	if !s.conditions() {
		p.objects = slices.Insert(p.objects, 0, conditional{name: variantName(d)})
	}
	if err != nil {
		return p, nil
	}
	steps := []stored{{first, stepName(d.Key), etag, time.Time{}}}
	if first.VariantID() != d.VariantID() || d.Replaces != "" {
		if steps, err = s.variants(ctx, d.Key); err != nil {
			return p, err
		}
		if len(steps) == 0 || steps[0].name != stepName(d.Key) || steps[0].etag != etag {
			return p, errChanged
		}
	}
	var there cache.Variants
	names := make(map[int][]string)
	for _, st := range steps {
		i := slices.IndexFunc(there, func(o cache.Descriptor) bool { return same(o, st.Descriptor) })
		if i < 0 {
			i = len(there)
			there = append(there, st.Descriptor)
		}
		names[i] = append(names[i], st.name)
	}
	over := max(len(there)-cache.MaxVariants, 0) // where something could not be deleted
	i, stores := there[:len(there)-over].Place(d)
	if !stores {
		ok, err := s.exists(ctx, blobName(there[i].Digest), there[i].Size)
		if err != nil || ok {
			return placing{}, err
		}
	}
	if d.Replaces == cache.AllVariants {
		for _, all := range names {
			p.gone = append(p.gone, all...)
		}
	} else if i < len(there)-over && !same(there[i], d) {
		p.gone = names[i]
	}
	if i > 0 {
		p.objects = []conditional{{name: variantName(d)}} // the first stays
	}
	p.gone = slices.DeleteFunc(slices.Clone(p.gone), func(name string) bool {
		return name == stepName(d.Key) || name == variantName(d) && slices.ContainsFunc(p.objects, func(o conditional) bool { return o.name == name })
	})
	return p, nil
}

// upload uploads a blob that the bucket lacks. A large one is sent in parts: what is cut off
// then is sent again a part at a time, and nothing is there before all are.
func (s *Store) upload(ctx context.Context, d cache.Descriptor, blob io.ReaderAt) error {
	name := blobName(d.Digest)
	if there, err := s.exists(ctx, name, d.Size); err != nil || there {
		return err
	}
	if s.compose(ctx, d, blob) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if d.Size > 2*s.part {
		return s.inParts(ctx, name, d.Size, func(upload string) error {
			return s.sendParts(ctx, name, upload, d.Size, blob)
		})
	}
	_, err := s.send(ctx, writing, request{method: http.MethodPut, name: name, body: blob, size: d.Size, sum: d.Digest.Encoded()})
	return err
}

// maxParts is how many parts services take of an upload. All but the last have one size.
const maxParts = 10_000

// partsAtOnce is how many parts are under way at a time.
const partsAtOnce = 4

type part struct {
	PartNumber int
	ETag       string
}

// inParts begins an upload in parts, which send makes and completes.
func (s *Store) inParts(ctx context.Context, name string, size int64, send func(upload string) error) error {
	ans, err := s.send(ctx, writing, request{method: http.MethodPost, name: name, query: url.Values{"uploads": {""}}})
	if err != nil {
		return err
	}
	var begun struct{ UploadId string }
	if err := xml.Unmarshal(ans.Body, &begun); err != nil || begun.UploadId == "" {
		return fmt.Errorf("upload %s: the service gives no id for an upload in parts", name)
	}
	err = send(begun.UploadId)
	if err == nil {
		return nil
	}
	if there, herr := s.exists(ctx, name, size); herr == nil && there {
		return nil // the answer was lost
	}
	// Parts that no upload has cost money until somebody removes them.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if aerr := s.abort(ctx, name, begun.UploadId); aerr != nil {
		slog.Debug("the parts of an upload stay", "err", aerr)
	}
	if errors.Is(err, cache.ErrNotCached) {
		err = fmt.Errorf("upload %s: %v", name, err) // the upload is gone, and it is the blob that was asked for
	}
	return err
}

func (s *Store) abort(ctx context.Context, name, upload string) error {
	_, err := s.send(ctx, removing, request{method: http.MethodDelete, name: name, query: url.Values{"uploadId": {upload}}})
	return err
}

func (s *Store) sendParts(ctx context.Context, name, upload string, size int64, blob io.ReaderAt) error {
	each := max(s.part, (size+maxParts-1)/maxParts)
	parts := make([]part, (size+each-1)/each)
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(partsAtOnce)
	for i := range parts {
		eg.Go(func() error {
			body := io.NewSectionReader(blob, int64(i)*each, min(each, size-int64(i)*each))
			etag, err := s.sendPart(gctx, name, upload, i+1, body)
			parts[i] = part{i + 1, etag}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	return s.completeParts(ctx, name, upload, parts)
}

func (s *Store) completeParts(ctx context.Context, name, upload string, parts []part) error {
	data, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []part
	}{Part: parts})
	if err != nil {
		return err
	}
	_, err = s.putBytes(ctx, request{method: http.MethodPost, name: name, query: url.Values{"uploadId": {upload}}, header: http.Header{"Content-Type": {"application/xml"}}}, data)
	return err
}

// Complete writes the manifest of the layer.
func (s *Store) Complete(ctx context.Context, m cache.Manifest) error {
	err := s.complete(ctx, m)
	if err == nil || errors.Is(err, cache.ErrReadOnly) {
		return err
	}
	return fmt.Errorf("complete %s: %w", m.Tag(), s.refuse(err))
}

func (s *Store) complete(ctx context.Context, m cache.Manifest) error {
	if err := s.Writable(); err != nil {
		return err
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	name := layerName(m.Tag())
	checked := false
	for range tries {
		listed, etag, err := s.layer(ctx, name)
		if err == nil && m.Covers(listed) {
			return nil
		}
		if err != nil && !errors.Is(err, cache.ErrNotCached) {
			return err
		}
		if !checked {
			if err := s.haveSteps(ctx, m); err != nil {
				return err
			}
			checked = true
		}
		condition := isNew
		if etag != "" {
			condition = isStill(etag)
		}
		if err = s.write(ctx, name, m, condition); !failed(err) {
			return err
		}
	}
	return errContended
}

// haveSteps returns ErrNotCached if a snapshot of the layer is not there.
func (s *Store) haveSteps(ctx context.Context, m cache.Manifest) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(atOnce)
	for _, d := range m.Steps {
		if s.knows(d) {
			continue
		}
		eg.Go(func() error {
			there, err := s.exists(ctx, blobName(d.Digest), d.Size)
			if err == nil && !there {
				err = fmt.Errorf("step %s: %w", d.Key.Short(), cache.ErrNotCached)
			}
			return err
		})
	}
	return eg.Wait()
}
