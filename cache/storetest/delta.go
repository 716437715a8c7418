package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/delta"
	"github.com/clayer/clayer/cache/transfer"
)

// Frames are the frames of a blob, as they are in it.
type Frames [][]byte

// RandomFrames returns frames of these sizes that nothing else has.
func RandomFrames(seed byte, sizes ...int) Frames {
	r := rand.NewChaCha8([32]byte{seed})
	all := make(Frames, len(sizes))
	for i, n := range sizes {
		all[i] = make([]byte, n)
		r.Read(all[i])
	}
	return all
}

// Step returns a descriptor with the frames, and its blob.
func (f Frames) Step(name string) (cache.Descriptor, *cache.Blob) {
	d, b := Step(name, string(bytes.Join(f, nil)))
	for _, frame := range f {
		sum := sha256.Sum256(frame)
		d.Frames = append(binary.AppendUvarint(d.Frames, uint64(len(frame))), sum[:]...)
	}
	return d, b
}

// A NearStore is at hand, and has these blobs.
type NearStore struct {
	cache.Store // not called
	Blobs       []Frames
	Opened      func(n int) // called after the n-th blob was opened; nil: nothing is
}

// A nearFile is a blob in memory.
type nearFile struct{ *bytes.Reader }

func (nearFile) Close() error { return nil }

// Near implements cache.Nearby. What is opened may be changed by Opened.
func (s NearStore) Near(context.Context, cache.Descriptor) (all []delta.Source) {
	for i, f := range s.Blobs {
		d, b := f.Step("near")
		b.Close()
		all = append(all, delta.Source{Frames: d.Frames, Size: d.Size, Open: func() (delta.File, error) {
			data := bytes.Join(f, nil)
			if s.Opened != nil {
				s.Opened(i)
			}
			return nearFile{bytes.NewReader(data)}, nil
		}})
	}
	return all
}

// RunDelta checks that a store sends the missing frames of a blob where most of it is near,
// and that its bytes are right in any case. most is how many bytes it may send; 0: nobody
// counts.
func RunDelta(t *testing.T, s cache.Store, most int64) {
	parts := RandomFrames(1, 900<<10, 700<<10, 400<<10, 300<<10, 800<<10, 600<<10, 50<<10)
	older := Frames{parts[0], parts[1], parts[2], parts[4], parts[5]}
	d, b := Frames{parts[0], parts[1], parts[3], parts[4], parts[5], parts[6]}.Step("delta")
	put(t, s, d, b)
	var sent atomic.Int64
	ctx := transfer.WithProgress(t.Context(), func(n int64) { sent.Add(n) })
	var got cache.Blob
	defer got.Close()
	if err := cache.FetchNear(ctx, s, d, &got, []cache.Store{NearStore{Blobs: []Frames{older}}}); err != nil || got.State() != cache.Verified {
		t.Fatalf("%v; the blob is %s", err, got.State())
	}
	if n := sent.Load(); most > 0 && (n == 0 || n > most) {
		t.Errorf("%d bytes were sent of %d, want up to %d", n, d.Size, most)
	}
}
