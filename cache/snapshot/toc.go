package snapshot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/clayer/clayer/cache/snapshot/frames"
)

// The table of contents is the last frame of a blob, a skippable one, which
// others step over (RFC 8878, 3.1.2):
//
//	4 bytes  50 2a 4d 18
//	4 bytes  the size of what follows, little-endian as all here
//	n bytes  a zstd frame of records
//	8 bytes  n + 24: the size of the whole skippable frame
//	8 bytes  "clayrTC2"
//
// Records begin with a byte and have numbers as uvarints:
//
//	F size plain                  a frame: its bytes, and those of the tar in it
//	E kind back size length path  an entry
//
// The frames follow each other from the first byte of the blob on. An entry
// stands after the last frame that it reaches into; back is how many frames before
// that its header is. What lists entries need not read the blob.
//
// Everything else about an entry is in its frame: the table changes with every change of
// a snapshot, and is transferred each time. Tables of earlier programs, "clayrTC1", have
// in place of back the index of the first frame and the offset in its tar, and after the
// size a SHA-256 of the content, which nobody used. Programs that know these alone take
// a newer blob for one without a table.
const (
	tocMagic  = "clayrTC2"
	tocMagic1 = "clayrTC1"
	tocFooter = 16
	tocExtra  = 8 + tocFooter
	maxTOC    = 256 << 20 // bytes of a table that is read, packed
	recordF   = 'F'
	recordE   = 'E'
)

// ErrNoTOC says that a blob has no table of contents.
var ErrNoTOC = errors.New("no table of contents")

// Listed is an entry as the table of contents describes it.
type Listed struct {
	Path  string
	Kind  Kind
	Index int   // of its first frame
	Size  int64 // of a File
}

// tocWriter gathers the table, compressed as it comes.
type tocWriter struct {
	buf bytes.Buffer
	enc *zstd.Encoder
	rec []byte
	n   int // frames
}

// tocEncoders are those that no table has.
var tocEncoders = sync.Pool{New: func() any { return newEncoder(zstd.WithWindowSize(1 << 20)) }}

func newTOCWriter() *tocWriter {
	t := &tocWriter{enc: tocEncoders.Get().(*zstd.Encoder)}
	t.enc.Reset(&t.buf)
	return t
}

// frame adds a frame, and the entries that end with it.
func (t *tocWriter) frame(f *frame) error {
	r := append(t.rec[:0], recordF)
	r = binary.AppendUvarint(r, uint64(len(f.packed)))
	r = binary.AppendUvarint(r, uint64(len(f.plain)))
	for _, e := range f.entries {
		r = append(r, recordE, byte(e.Kind))
		r = binary.AppendUvarint(r, uint64(t.n-e.Index))
		r = binary.AppendUvarint(r, uint64(e.Size))
		r = binary.AppendUvarint(r, uint64(len(e.Path)))
		r = append(r, e.Path...)
	}
	t.n++
	t.rec = r
	_, err := t.enc.Write(r)
	return err
}

// close returns the skippable frame.
func (t *tocWriter) close() ([]byte, error) {
	if err := t.enc.Close(); err != nil {
		return nil, err
	}
	t.enc.Reset(nil)
	tocEncoders.Put(t.enc)
	n := t.buf.Len()
	if n > maxTOC {
		return nil, nil // so many entries: a blob without a table is one too
	}
	b := make([]byte, 0, n+tocExtra)
	b = binary.LittleEndian.AppendUint32(b, frames.Skippable)
	b = binary.LittleEndian.AppendUint32(b, uint32(n+tocFooter))
	b = append(b, t.buf.Bytes()...)
	b = binary.LittleEndian.AppendUint64(b, uint64(n+tocExtra))
	return append(b, tocMagic...), nil
}

// List yields the entries that the table of contents of a blob of size bytes
// lists, in their order, without reading the rest of it. A blob that has none
// is ErrNoTOC.
//
// The table is no part of the tar, and what unpacks a blob does not use it: it
// may lie. That its frames fit into the blob, and that an entry lies in the
// frames before it, is checked. It needs constant memory.
func List(blob io.ReaderAt, size int64) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		fail := func(err error) { yield(Listed{}, fmt.Errorf("table of contents: %w", err)) }
		r, left, first, err := openTOC(blob, size)
		if err != nil {
			fail(err)
			return
		}
		defer r.Close()
		t := tocReader{in: bufio.NewReaderSize(r, 32<<10), left: uint64(left), first: first}
		for {
			l, err := t.next()
			if err == io.EOF {
				if t.left != 0 {
					fail(fmt.Errorf("its frames end %d bytes before it", t.left))
				}
				return
			}
			if err != nil {
				fail(err)
				return
			}
			if l != nil && !yield(*l, nil) {
				return
			}
		}
	}
}

// openTOC opens the records of a blob, and returns how many bytes are before them, and
// whether they are of the first format.
func openTOC(blob io.ReaderAt, size int64) (records io.ReadCloser, before int64, first bool, err error) {
	var foot [tocFooter]byte
	if size < tocExtra {
		return nil, 0, false, ErrNoTOC
	}
	if _, err := blob.ReadAt(foot[:], size-tocFooter); err != nil && err != io.EOF {
		return nil, 0, false, err
	}
	if first = string(foot[8:]) == tocMagic1; !first && string(foot[8:]) != tocMagic {
		return nil, 0, false, ErrNoTOC
	}
	n := binary.LittleEndian.Uint64(foot[:])
	if n < tocExtra || n > uint64(size) || n > maxTOC+tocExtra {
		return nil, 0, false, fmt.Errorf("it is %d bytes large, it says, in a blob of %d", n, size)
	}
	var head [8]byte
	if _, err := blob.ReadAt(head[:], size-int64(n)); err != nil {
		return nil, 0, false, err
	}
	if binary.LittleEndian.Uint32(head[:]) != frames.Skippable || uint64(binary.LittleEndian.Uint32(head[4:])) != n-8 {
		return nil, 0, false, errors.New("it does not begin where it says")
	}
	d, err := zstd.NewReader(io.NewSectionReader(blob, size-int64(n)+8, int64(n)-tocExtra),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, 0, false, err
	}
	return d.IOReadCloser(), size - int64(n), first, nil
}

type tocReader struct {
	in    *bufio.Reader
	left  uint64   // bytes of the blob that no frame has covered yet
	plain []uint64 // bytes of the tar up to the end of each frame
	path  []byte
	first bool // records are those of the first format
}

// next returns the next entry, nil for a frame, and io.EOF at the end.
func (t *tocReader) next() (*Listed, error) {
	kind, err := t.in.ReadByte()
	if err != nil {
		return nil, err
	}
	switch kind {
	case recordF:
		return nil, t.frame()
	case recordE:
		l, err := t.entry()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return l, err
	}
	return nil, fmt.Errorf("unknown record %#x", kind)
}

func (t *tocReader) frame() error {
	n, err1 := t.number(t.left)
	plain, err2 := t.number(maxPlain)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	// A frame has a header at least, so that their number is bounded by the blob.
	if n < 6 {
		return fmt.Errorf("a frame of %d bytes", n)
	}
	t.left -= n
	before := uint64(0)
	if k := len(t.plain); k > 0 {
		before = t.plain[k-1]
	}
	if before+plain > maxPlain {
		return errors.New("frames of more than an exabyte")
	}
	t.plain = append(t.plain, before+plain)
	return nil
}

// maxPlain bounds the sizes of tars, so that no sum of two overflows.
const maxPlain = 1 << 60

func (t *tocReader) entry() (*Listed, error) {
	k, err := t.in.ReadByte()
	if err != nil {
		return nil, err
	}
	l := &Listed{Kind: Kind(k)}
	if l.Kind < File || l.Kind > Opaque {
		return nil, fmt.Errorf("an entry of unknown kind %d", k)
	}
	if len(t.plain) == 0 {
		return nil, errors.New("an entry before all frames")
	}
	last := uint64(len(t.plain) - 1)
	index, offset := uint64(0), uint64(0)
	back, err1 := t.number(last)
	if index = last - back; t.first {
		index = back
		offset, err = t.number(maxPlain)
	}
	size, err2 := t.number(maxPlain)
	if err := errors.Join(err1, err, err2); err != nil {
		return nil, err
	}
	begin := uint64(0)
	if index > 0 {
		begin = t.plain[index-1]
	}
	if begin+offset > t.plain[index] || begin+offset+size > t.plain[last] {
		return nil, errors.New("an entry that reaches beyond its frames")
	}
	l.Index, l.Size = int(index), int64(size)
	if t.first {
		if _, err := t.in.Discard(sha256.Size); err != nil {
			return nil, err
		}
	}
	n, err := t.number(maxPath)
	if err != nil {
		return nil, err
	}
	if uint64(cap(t.path)) < n {
		t.path = make([]byte, maxPath)
	}
	t.path = t.path[:n]
	if _, err := io.ReadFull(t.in, t.path); err != nil {
		return nil, err
	}
	l.Path = string(t.path)
	return l, checkPath(l.Path)
}

// number reads one that is at most most.
func (t *tocReader) number(most uint64) (uint64, error) {
	n, err := binary.ReadUvarint(t.in)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && n > most {
		err = fmt.Errorf("%d, where %d is the most", n, most)
	}
	return n, err
}
