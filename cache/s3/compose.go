package s3

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/delta"
)

const (
	// leastPart is how small a part of an upload may be that is not the last one.
	leastPart = 5 << 20

	// largest is what may be composed: a part has no more.
	largest = 5 << 30

	// olderLayers is how many layers of the same name are looked at.
	olderLayers = 3
)

// older returns the snapshots of the newest layers of the same name.
func (s *Store) older(ctx context.Context, layer string) (all []cache.Descriptor) {
	prefix := strings.TrimSuffix(layerName(cache.Tag(layer, [32]byte{})), strings.Repeat("0", 16)+".json")
	objects, err := s.list(ctx, prefix)
	if err != nil {
		return nil
	}
	objects = slices.DeleteFunc(objects, func(o object) bool { return len(o.name) != len(prefix)+16+len(".json") })
	slices.SortFunc(objects, func(a, b object) int { return b.at.Compare(a.at) })
	for _, o := range objects[:min(olderLayers, len(objects))] {
		if m, _, err := s.layer(ctx, o.name); err == nil {
			all = append(all, m.Steps...)
		}
	}
	return slices.DeleteFunc(all, func(d cache.Descriptor) bool { return len(d.Frames) == 0 })
}

// compose uploads what of a blob no older one in the bucket has, and lets the service copy
// the rest from these (UploadPartCopy). It reports false if the blob is to be uploaded as a
// whole: not worth it, or not possible here.
func (s *Store) compose(ctx context.Context, d cache.Descriptor, blob io.ReaderAt) bool {
	// Cloudflare's parts have one size, and Google copies none.
	if s.sendsAll.Load() || len(d.Frames) == 0 || d.Size < 2*leastPart || d.Size > largest ||
		s.login.google() || strings.HasSuffix(s.login.endpoint.Hostname(), ".r2.cloudflarestorage.com") {
		return false
	}
	steps := s.older(ctx, d.Layer)
	var sources []delta.Source
	for _, o := range steps {
		sources = append(sources, delta.Source{Frames: o.Frames, Size: o.Size})
	}
	segments := delta.Segments(d.Frames, d.Size, sources, leastPart)
	if segments == nil {
		return false
	}
	err := s.inParts(ctx, blobName(d.Digest), d.Size, func(upload string) error {
		return s.sendSegments(ctx, blobName(d.Digest), upload, segments, steps, blob)
	})
	if err != nil && ctx.Err() == nil {
		var e *Error
		if errors.As(err, &e) && e.Status/100 != 5 && !errors.Is(err, cache.ErrNotCached) {
			s.sendsAll.Store(true)
		}
		slog.Debug("the service does not compose a snapshot; all of it is uploaded", "store", s.Location(), "err", err)
	}
	return err == nil
}

// sendSegments makes the parts of an upload, and completes it.
func (s *Store) sendSegments(ctx context.Context, name, upload string, segments []delta.Segment, steps []cache.Descriptor, blob io.ReaderAt) error {
	parts := make([]part, len(segments))
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(partsAtOnce)
	for i, seg := range segments {
		eg.Go(func() (err error) {
			body := io.NewSectionReader(blob, seg.Range.From, seg.Len())
			parts[i].PartNumber = i + 1
			if seg.Older < 0 {
				parts[i].ETag, err = s.sendPart(gctx, name, upload, i+1, body)
				return err
			}
			parts[i].ETag, err = s.copyPart(gctx, name, upload, i+1, blobName(steps[seg.Older].Digest), seg.From, body)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	return s.completeParts(ctx, name, upload, parts)
}

// sendPart uploads a part.
func (s *Store) sendPart(ctx context.Context, name, upload string, number int, body *io.SectionReader) (etag string, err error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, body); err != nil {
		return "", err
	}
	ans, err := s.send(ctx, writing, request{
		method: http.MethodPut, name: name, query: partQuery(upload, number),
		body: body, size: body.Size(), sum: hex.EncodeToString(hash.Sum(nil)),
	})
	if err != nil {
		return "", err
	}
	return ans.Header.Get("ETag"), nil
}

func partQuery(upload string, number int) url.Values {
	return url.Values{"partNumber": {strconv.Itoa(number)}, "uploadId": {upload}}
}

// copyPart has the service copy a part from another object. want has the bytes that it is to
// be: an older blob may not be what it should be, and then the part's ETag, which is its MD5,
// is another one. Where ETags are something else, nothing is composed.
func (s *Store) copyPart(ctx context.Context, name, upload string, number int, source string, from int64, want io.Reader) (etag string, err error) {
	hash := md5.New()
	n, err := io.Copy(hash, want)
	if err != nil {
		return "", err
	}
	ans, err := s.send(ctx, writing, request{method: http.MethodPut, name: name, query: partQuery(upload, number), copies: true, header: http.Header{
		"X-Amz-Copy-Source":       {s3utils.EncodePath("/" + s.at.bucket + "/" + s.at.object(source))},
		"X-Amz-Copy-Source-Range": {fmt.Sprintf("bytes=%d-%d", from, from+n-1)},
	}})
	if err != nil {
		return "", err
	}
	var copied struct {
		XMLName xml.Name `xml:"CopyPartResult"`
		ETag    string
	}
	if err := xml.Unmarshal(ans.Body, &copied); err != nil {
		return "", fmt.Errorf("the answer to a copy makes no sense: %w", err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); strings.Trim(copied.ETag, `"`) != sum {
		return "", fmt.Errorf("%s: the part from %d on has the ETag %s, want %s", source, from, copied.ETag, sum)
	}
	return copied.ETag, nil
}
