package delta_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/clayer/clayer/cache/delta"
	"github.com/clayer/clayer/cache/snapshot/frames"
)

type file struct {
	*bytes.Reader
	closed *int
}

func (f file) Close() error { *f.closed++; return nil }

// blob is one made of numbered frames; the same number is the same frame.
type blob []int

var contents = make(map[int][]byte)

func content(n int) []byte {
	if contents[n] == nil {
		var seed [32]byte
		seed[0], seed[1] = byte(n), byte(n>>8)
		contents[n] = make([]byte, 1+rand.New(rand.NewPCG(uint64(n), 7)).IntN(200<<10))
		rand.NewChaCha8(seed).Read(contents[n])
	}
	return contents[n]
}

func (b blob) bytes(tail int) (all []byte) {
	for _, n := range b {
		all = append(all, content(n)...)
	}
	return append(all, content(tail)...) // the table of contents, so to speak
}

// frames lists the frames of a blob with a tail.
func (b blob) frames(tail int) (all frames.List) {
	for _, n := range append(slices.Clone(b), tail) {
		all = all.Append(int64(len(content(n))), sha256.Sum256(content(n)))
	}
	return all
}

type writer []byte

func (w writer) WriteAt(p []byte, off int64) (int, error) { return copy(w[off:], p), nil }

// What is copied, and the ranges that are missing, make the blob, whatever the older ones
// are; nothing is written twice.
func TestFindRandomly(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	worth := 0
	for range 25 {
		closed, opened := 0, 0
		var sources []delta.Source
		for range r.IntN(3) {
			var older blob
			for range r.IntN(60) {
				older = append(older, r.IntN(80))
			}
			data := older.bytes(1000)
			size := int64(len(data))
			if r.IntN(3) == 0 && len(data) > 10 { // damaged, or cut off
				data[r.IntN(len(data))] ^= 1
				data = data[:len(data)-r.IntN(len(data)/2)]
			}
			gone := r.IntN(5) == 0
			sources = append(sources, delta.Source{Frames: older.frames(1000), Size: size, Open: func() (delta.File, error) {
				if gone {
					return nil, errors.New("evicted")
				}
				opened++
				return file{bytes.NewReader(data), &closed}, nil
			}})
		}
		var b blob
		for range r.IntN(60) {
			b = append(b, r.IntN(80))
		}
		want := b.bytes(2000)
		n := delta.Find(b.frames(2000), int64(len(want)), sources)
		if n != nil {
			worth++
			check(t, n, want)
			n.Close()
		}
		if closed != opened {
			t.Errorf("%d files were opened, and %d closed", opened, closed)
		}
		if t.Failed() {
			return
		}
	}
	if worth < 2 {
		t.Errorf("only %d of the blobs were worth it", worth)
	}
}

func check(t *testing.T, n *delta.Near, want []byte) {
	t.Helper()
	got, size, sent := make(writer, len(want)), int64(len(want)), int64(0)
	for from := int64(0); from < size; { // in windows, as of a blob in pieces
		to := min(size, from+1+rand.Int64N(size))
		within := delta.Range{From: from, To: to}
		lost, err := n.Copy(context.Background(), got, within)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range append(n.Missing(within), lost...) {
			if r.From < from || r.To > to {
				t.Fatalf("range %v is not in %v", r, within)
			}
			if !bytes.Equal(got[r.From:r.To], make([]byte, r.Len())) {
				t.Fatalf("range %v was copied, and is missing", r)
			}
			copy(got[r.From:r.To], want[r.From:r.To])
			if err := n.Check(bytes.NewReader(got), r); err != nil {
				t.Fatal(err)
			}
			sent += r.Len()
		}
		from = to
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the blob is another one")
	}
	if sent+n.Copied() < size {
		t.Errorf("%d bytes were sent and %d copied of %d", sent, n.Copied(), size)
	}
}

func TestCheckFindsOtherBytes(t *testing.T) {
	var b blob
	for i := range 40 {
		b = append(b, i)
	}
	data := append(b, 100).bytes(200)
	n := delta.Find(append(b, 100).frames(200), int64(len(data)), []delta.Source{{Frames: b.frames(1), Size: int64(len(b.bytes(1))), Open: func() (delta.File, error) {
		return file{bytes.NewReader(b.bytes(1)), new(int)}, nil
	}}})
	missing := n.Missing(delta.Range{To: int64(len(data))})
	if len(missing) != 1 {
		t.Fatal(missing)
	}
	data[missing[0].From] ^= 1
	if n.Check(bytes.NewReader(data), missing[0]) == nil {
		t.Error("a frame with another byte passed")
	}
	if n.Check(bytes.NewReader(data[:missing[0].From+1]), missing[0]) == nil {
		t.Error("a frame that is cut off passed")
	}
}

var _ io.WriterAt = writer(nil)

// Segments cover the blob, are long enough, and older blobs have what they say.
func TestSegmentsRandomly(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	worth := 0
	for range 60 {
		var older []delta.Source
		var data [][]byte
		for range r.IntN(3) {
			var b blob
			for n := r.IntN(80); n > 0; n-- {
				b = append(b, r.IntN(4)+len(b))
			}
			data = append(data, b.bytes(1000))
			older = append(older, delta.Source{Frames: b.frames(1000), Size: int64(len(data[len(data)-1]))})
		}
		var b blob
		for n := r.IntN(80); n > 0; n-- {
			b = append(b, r.IntN(2)+len(b))
		}
		want, least := b.bytes(2000), int64(1+r.IntN(1<<20))
		all := delta.Segments(b.frames(2000), int64(len(want)), older, least)
		at := int64(0)
		for i, s := range all {
			if s.Range.From != at || s.Len() <= 0 || s.Len() < least && i < len(all)-1 {
				t.Fatalf("segment %d of %d: %+v, after %d", i, len(all), s, at)
			}
			if s.Older >= 0 && !bytes.Equal(want[at:s.To], data[s.Older][s.From:s.From+s.Len()]) {
				t.Fatalf("segment %d is not what an older blob has there: %+v", i, s)
			}
			at = s.To
		}
		if len(all) > 0 {
			worth++
			if at != int64(len(want)) {
				t.Fatalf("segments end at %d of %d", at, len(want))
			}
		}
	}
	if worth < 2 {
		t.Errorf("only %d of the blobs were worth it", worth)
	}
}

// Most pieces of two blobs are equal if most of their frames are.
func TestPieces(t *testing.T) {
	var b blob
	for i := range 300 {
		b = append(b, i%250)
	}
	changed := append(append(slices.Clone(b[:100]), 260, 261), b[101:]...)
	cut := func(b blob) map[string]bool {
		data, all := b.bytes(1), make(map[string]bool)
		for i, n := range delta.Pieces(b.frames(1), int64(len(data)), 1<<20, 4<<20) {
			if n > 4<<20 || n < 1<<20 && int(n) != len(data) {
				t.Errorf("piece %d has %d bytes", i, n)
			}
			all[string(data[:n])] = true
			data = data[n:]
		}
		if len(data) != 0 {
			t.Errorf("%d bytes are in no piece", len(data))
		}
		return all
	}
	before, after := cut(b), cut(changed)
	others := 0
	for p := range after {
		if !before[p] {
			others++
		}
	}
	if others < 1 || others > 4 || len(after) < 8 {
		t.Errorf("%d of %d pieces are others", others, len(after))
	}
	if got := delta.Pieces(nil, 10, 2, 4); !slices.Equal(got, []int64{4, 4, 2}) {
		t.Errorf("without frames: %v", got)
	}
}
