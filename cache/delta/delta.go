// Package delta says which bytes of a snapshot are near already, as frames of older ones,
// and which have to be transferred.
//
// The frames of a snapshot are independent of each other, and cut by content: what did not
// change is the same frame, byte for byte, wherever it is in the blob. Their digests are in
// the snapshot's descriptor. All of that may lie, and so may the older blobs: a frame is
// copied only if its SHA-256 matches, and the SHA-256 of the whole blob decides as ever.
package delta

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"

	"github.com/clayer/clayer/cache/snapshot/frames"
)

// maxFrame bounds what is read into memory at a time. Packing cuts frames that are smaller.
const maxFrame = 64 << 20

// A File is what an older blob is read from.
type File interface {
	io.ReaderAt
	io.Closer
}

// A Source is an older blob of Size bytes, and what is known of its frames.
type Source struct {
	Frames frames.List
	Size   int64
	Open   func() (File, error)
}

// A Composite is a file of which a server need not send everything: the rest is near. Its
// ranges do not overlap.
type Composite interface {
	// Missing returns the ranges of the first size bytes that are transferred; false for a
	// file that is transferred as a whole.
	Missing(size int64) ([]Range, bool)

	// Copy writes the rest. It returns what it lacks after all, and the error of writing.
	Copy(ctx context.Context, size int64) ([]Range, error)

	// Check returns an error if the bytes of a range that arrived are not what they should be.
	Check(r Range) error
}

// A Range is the bytes of a blob from an offset to before another one.
type Range struct{ From, To int64 }

// Len returns how many bytes it has.
func (r Range) Len() int64 { return r.To - r.From }

// Shift adds a number to the ends of ranges, and returns them.
func Shift(rs []Range, by int64) []Range {
	for i := range rs {
		rs[i].From, rs[i].To = rs[i].From+by, rs[i].To+by
	}
	return rs
}

// Near says where the frames of a blob are near. It has the older blobs open, so that
// nothing that is evicted meanwhile is missing. Its methods are safe for concurrent use.
type Near struct {
	places  []place // of the frames, in order
	missing []Range
	files   []File
	copied  int64
}

// A place is where a frame of the blob goes, and comes from.
type place struct {
	frames.Frame
	file File // nil: it is not near, or not worth a request fewer
	from int64
}

const (
	// gap is how many bytes between two ranges are transferred to save a request.
	gap = 128 << 10

	// maxRanges is how many runs of frames are asked for at most.
	maxRanges = 48

	// maxRange is the largest range, unless a single frame is larger.
	maxRange = 8 << 20
)

// worth is how many bytes have to be near, which are also to be a quarter of the blob.
const worth = 1 << 20

// An origin is where a frame is: in a source, from a position on.
type origin struct {
	source int // its index
	from   int64
}

// index returns the frames of sources by their digests, each as the first of them has it.
func index(sources []Source) map[[sha256.Size]byte]origin {
	known := make(map[[sha256.Size]byte]origin)
	for i, s := range sources {
		older, _ := s.Frames.Of(s.Size) // none, if it makes no sense
		for _, f := range older {
			if _, ok := known[f.Digest]; !ok {
				known[f.Digest] = origin{i, f.Offset}
			}
		}
	}
	return known
}

// Find looks for the frames of a blob of size bytes in older ones, the likeliest first. It
// returns nil if too few are near to be worth it, or a list makes no sense. The caller closes
// what it returns.
func Find(list frames.List, size int64, sources []Source) *Near {
	all, err := list.Of(size)
	if err != nil || len(all) == 0 || size < worth {
		return nil
	}
	known := index(sources)
	n, files := &Near{}, make(map[int]File)
	for _, f := range all {
		p := place{Frame: f}
		if o, ok := known[f.Digest]; ok && f.Size <= maxFrame {
			file, tried := files[o.source]
			if !tried {
				var err error
				if file, err = sources[o.source].Open(); err != nil {
					file = nil // its frames are missing
				}
				files[o.source] = file
			}
			p.file, p.from = file, o.from
		}
		n.places = append(n.places, p)
	}
	for _, f := range files {
		if f != nil {
			n.files = append(n.files, f)
		}
	}
	n.plan(size)
	if n.copied < worth || n.copied < size/4 {
		n.Close()
		return nil
	}
	return n
}

// plan decides what is transferred: what is not near, and small gaps between that.
func (n *Near) plan(size int64) {
	var runs []Range
	add := func(from, to int64) {
		if k := len(runs); k > 0 && from-runs[k-1].To <= gap {
			runs[k-1].To = to
		} else if from < to {
			runs = append(runs, Range{from, to})
		}
	}
	for _, p := range n.places {
		if p.file == nil {
			add(p.Offset, p.Offset+p.Size)
		}
	}
	for len(runs) > maxRanges {
		least := 1
		for i := 2; i < len(runs); i++ {
			if runs[i].From-runs[i-1].To < runs[least].From-runs[least-1].To {
				least = i
			}
		}
		runs[least-1].To = runs[least].To
		runs = slices.Delete(runs, least, least+1)
	}
	n.copied = size
	n.missing = n.missing[:0]
	for _, r := range runs {
		n.copied -= r.Len()
		n.missing = append(n.missing, n.split(r)...)
	}
	k := 0
	for i, p := range n.places {
		for k < len(runs) && runs[k].To <= p.Offset {
			k++
		}
		if k < len(runs) && runs[k].From <= p.Offset {
			n.places[i].file = nil
		}
	}
}

// split cuts a range at frames.
func (n *Near) split(r Range) (all []Range) {
	from := r.From
	for _, p := range n.places {
		if end := p.Offset + p.Size; p.Offset > from && end <= r.To && end-from > maxRange {
			all = append(all, Range{from, p.Offset})
			from = p.Offset
		}
	}
	return append(all, Range{from, r.To})
}

// Copied returns how many bytes are near.
func (n *Near) Copied() int64 { return n.copied }

// Missing returns the ranges within one that have to be transferred, in order. Each is of
// whole frames, but for where the range ends.
func (n *Near) Missing(within Range) (all []Range) {
	for _, r := range n.missing {
		if r = r.and(within); r.Len() > 0 {
			all = append(all, r)
		}
	}
	return all
}

func (r Range) and(o Range) Range {
	return Range{max(r.From, o.From), min(r.To, o.To)}
}

// Copy writes what is near within a range. It returns the ranges whose bytes are not those
// of their frames, or can't be read any more: they are missing too. The error is of w, or
// of ctx.
func (n *Near) Copy(ctx context.Context, w io.WriterAt, within Range) (lost []Range, err error) {
	var buf []byte
	for _, p := range n.places {
		r := Range{p.Offset, p.Offset + p.Size}.and(within)
		if p.file == nil || r.Len() <= 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		buf = slices.Grow(buf[:0], int(p.Size))[:p.Size]
		if _, err := p.file.ReadAt(buf, p.from); err != nil || sha256.Sum256(buf) != p.Digest {
			lost = append(lost, r)
			continue
		}
		if _, err := w.WriteAt(buf[r.From-p.Offset:r.To-p.Offset], r.From); err != nil {
			return nil, err
		}
	}
	return lost, nil
}

// Check reads the frames that lie in a range which arrived, and returns an error if one is
// another than the blob's.
func (n *Near) Check(arrived io.ReaderAt, r Range) error {
	var buf []byte
	for _, p := range n.places {
		if p.Offset < r.From || p.Offset+p.Size > r.To || p.Size > maxFrame {
			continue
		}
		buf = slices.Grow(buf[:0], int(p.Size))[:p.Size]
		if _, err := arrived.ReadAt(buf, p.Offset); err != nil {
			return err
		}
		if sha256.Sum256(buf) != p.Digest {
			return fmt.Errorf("the bytes from %d on are not those of the frame", p.Offset)
		}
	}
	return nil
}

// Close closes the older blobs.
func (n *Near) Close() {
	for _, f := range n.files {
		f.Close()
	}
	n.files = nil
}
