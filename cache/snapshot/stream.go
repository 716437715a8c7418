package snapshot

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/clayer/clayer/cache/snapshot/frames"
	"github.com/clayer/clayer/cache/snapshot/internal/tarheader"
)

// A chunk is a run of a tar, in order: a frame that was decoded by itself, or
// the rest of the stream.
type chunk struct {
	packed []byte
	size   int // of data, as the frame says
	done   chan struct{}

	data []byte
	err  error
	// What data holds if it begins with the header of an entry and ends with
	// one: a guess, since it may be the content of a file that is a tar.
	entries []*Entry
	tail    int       // where the content of the last entry begins, if it ends in a later chunk
	more    int64     // bytes of that content, with its padding; 0: all entries end here
	whole   bool      // the guess holds, from the first byte to the last
	end     bool      // it ends with the end of the tar
	rest    io.Reader // of the last chunk: the tar from here on

	users atomic.Int32 // of data: entries that were not released, and the joiner
}

// A chunker decodes the frames of a zstd stream, several at a time, and parses
// what is in them. It reads ahead by a few frames per worker.
type chunker struct {
	in    io.Reader
	plain chan []byte // data that no entry refers to, to be used again
	bytes chan []byte // of packed
	order chan *chunk
	work  chan *chunk
	quit  chan struct{}
	wg    sync.WaitGroup
	rest  *zstd.Decoder
}

func newChunker(in io.Reader) *chunker {
	n := runtime.GOMAXPROCS(0)
	c := &chunker{in: in, plain: make(chan []byte, 3*n), bytes: make(chan []byte, 3*n), order: make(chan *chunk, 2*n), work: make(chan *chunk, 2*n), quit: make(chan struct{})}
	c.wg.Go(c.split)
	for range n {
		c.wg.Go(c.decode)
	}
	return c
}

// close ends the goroutines and waits for them.
func (c *chunker) close() {
	close(c.quit)
	for range c.order { // until split has seen it
	}
	c.wg.Wait()
	if c.rest != nil {
		c.rest.Close()
	}
}

// next returns the next chunk, decoded; nil at the end.
func (c *chunker) next() (*chunk, error) {
	ch, ok := <-c.order
	if !ok {
		return nil, nil
	}
	if ch.done != nil {
		<-ch.done
	}
	return ch, ch.err
}

// release says that one user of the data of a chunk is done. What
// nothing refers to is used again.
func (c *chunker) release(ch *chunk) {
	if ch.users.Add(-1) == 0 {
		recycle(c.plain, ch.data)
		ch.data = nil
	}
}

// recycle stores a buffer for reuse, if there is space for it.
func recycle(to chan []byte, b []byte) {
	select {
	case to <- b[:0]:
	default:
	}
}

// buffer returns an empty buffer for n bytes: a recycled one, if it is large
// enough.
func buffer(from chan []byte, n int) []byte {
	select {
	case b := <-from:
		if cap(b) >= n {
			return b
		}
	default:
	}
	if n > frameSize/2 && n < 3*frameSize/2 {
		n = 3 * frameSize / 2 // as large as a frame of ours can be: good for the next one too
	}
	return make([]byte, 0, n)
}

// split reads the stream and cuts it into frames (RFC 8878, 3.1.1). One that is
// large, or does not say how large it is, is decoded as a stream with all that follows.
func (c *chunker) split() {
	defer close(c.order)
	defer close(c.work)
	for {
		ch, err := c.frame()
		if err == io.EOF {
			return
		}
		if err != nil {
			ch = &chunk{err: err}
		}
		if ch == nil {
			continue
		}
		if ch.done != nil {
			select {
			case c.work <- ch:
			case <-c.quit:
				return
			}
		}
		select {
		case c.order <- ch:
		case <-c.quit:
			return
		}
		if err != nil || ch.rest != nil {
			return
		}
	}
}

const (
	maxBlock    = 128 << 10
	maxOverhead = 64 << 10 // of frames that their content says nothing of
)

// frame reads one; nil is a skippable one, and io.EOF the end.
func (c *chunker) frame() (*chunk, error) {
	var b [8]byte
	switch _, err := io.ReadFull(c.in, b[:4]); {
	case err == io.EOF:
		return nil, err
	case err != nil:
		return nil, unexpected(err)
	}
	packed := append(make([]byte, 0, 64), b[:4]...)
	// read adds the next n bytes.
	read := func(n int) ([]byte, error) {
		at := len(packed)
		packed = append(packed, make([]byte, n)...)
		_, err := io.ReadFull(c.in, packed[at:])
		return packed[at:], unexpected(err)
	}
	if magic := binary.LittleEndian.Uint32(packed); magic&^0xf == frames.Skippable {
		b, err := read(4)
		if err != nil {
			return nil, err
		}
		n := int64(binary.LittleEndian.Uint32(b))
		_, err = io.CopyN(io.Discard, c.in, n)
		return nil, unexpected(err)
	} else if magic != frames.Magic {
		return nil, zstd.ErrMagicMismatch
	}
	d, err := read(1)
	if err != nil {
		return nil, err
	}
	skip, n, checksum := frames.Header(d[0])
	h, err := read(skip + n)
	if err != nil {
		return nil, err
	}
	size := contentSize(h[skip:])
	if n == 0 || size > maxFrame {
		return c.whole(packed)
	}
	packed = append(buffer(c.bytes, len(packed)), packed...)
	for last := false; !last; {
		b, err := read(3)
		if err != nil {
			return nil, err
		}
		var n int
		last, n = frames.Block(b)
		if n > maxBlock || len(packed)+n > int(size)+int(size)/2+maxOverhead {
			return nil, errors.New("zstd: a frame whose blocks are larger than it can be")
		}
		if _, err := read(n); err != nil {
			return nil, err
		}
	}
	if checksum {
		if _, err := read(4); err != nil {
			return nil, err
		}
	}
	return &chunk{packed: packed, size: int(size), done: make(chan struct{})}, nil
}

// whole returns all of the stream from a frame on whose beginning was read.
func (c *chunker) whole(begun []byte) (*chunk, error) {
	var err error
	c.rest, err = zstd.NewReader(io.MultiReader(bytes.NewReader(begun), c.in), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	return &chunk{rest: c.rest}, err
}

func contentSize(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b)) + 256
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	case 8:
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// unexpected is for what must not end here.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *chunker) decode() {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(fmt.Sprintf("snapshot: options of the decoder: %v", err)) // they are constant
	}
	defer d.Close()
	for ch := range c.work {
		ch.data, ch.err = d.DecodeAll(ch.packed, buffer(c.plain, ch.size))
		recycle(c.bytes, ch.packed)
		ch.packed = nil
		if ch.err == nil {
			ch.parse(func() { c.release(ch) })
		}
		close(ch.done)
	}
}

// parse parses a chunk as if an entry began with it. What it does not take for
// certain it leaves to archive/tar, which then reads the stream on from there.
func (ch *chunk) parse(release func()) {
	ch.users.Store(1)
	r := bytes.NewReader(ch.data)
	total := int64(len(ch.data))
	for at := int64(0); ; {
		if at == total {
			ch.whole = true
			return
		}
		var h *tar.Header
		var err error
		if quick, n, ok := tarheader.Read(ch.data[at:], isRecord); ok {
			h = &quick
			r.Reset(ch.data[at+int64(n):])
		} else {
			h, err = tar.NewReader(r).Next()
		}
		if err == io.EOF {
			ch.end = total-at >= 2*tarBlock && len(bytes.TrimLeft(ch.data[at:], "\x00")) == 0
			ch.whole = ch.end
			return
		}
		if err != nil || h.Size < 0 || h.Size > maxPlain || h.Typeflag == tar.TypeXGlobalHeader || isSparse(h) {
			return
		}
		e, err := entry(h, nil)
		if err != nil || e == nil || e.Kind != File && h.Size != 0 {
			return
		}
		begin := total - int64(r.Len())
		if e.Kind == File && h.Size <= total-begin {
			data := ch.data[begin : begin+h.Size : begin+h.Size]
			e.Content = data
			e.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
			e.Release = release
			ch.users.Add(1)
		}
		ch.entries = append(ch.entries, e)
		at = begin + (h.Size+tarBlock-1)/tarBlock*tarBlock
		if at > total {
			ch.tail, ch.more, ch.whole = int(begin), at-begin, true
			return
		}
		r.Reset(ch.data[at:])
	}
}

const tarBlock = 512

// isRecord reports whether a PAX record is one that entries are made of.
func isRecord(key string) bool {
	return key == recordImplied || key == recordData || strings.HasPrefix(key, recordXattr)
}

// isSparse reports whether what follows a header is not the content as it is.
func isSparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// A joiner puts chunks together again.
type joiner struct {
	chunks *chunker
	data   []byte // of cur, what was not read
	cur    *chunk
	err    error
}

// pull makes the next chunk the current one; false is the end.
func (j *joiner) pull() bool {
	if j.err != nil || j.cur != nil && j.cur.rest != nil {
		return false
	}
	if j.cur != nil {
		j.chunks.release(j.cur)
	}
	if j.cur, j.err = j.chunks.next(); j.err != nil || j.cur == nil {
		j.data = nil
		return false
	}
	j.data = j.cur.data
	return true
}

// Read reads the tar on from where it is.
func (j *joiner) Read(p []byte) (int, error) {
	for len(j.data) == 0 {
		if j.cur != nil && j.cur.rest != nil {
			return j.cur.rest.Read(p)
		}
		if !j.pull() {
			return 0, cmp.Or(j.err, io.EOF)
		}
	}
	n := copy(p, j.data)
	j.data = j.data[n:]
	return n, nil
}

// entries yields the entries of whole chunks, as long as there are such. Then
// the tar is to be read on from where the joiner is; ended says that it has
// ended, and more is false if yield returned false.
func (j *joiner) entries(yield func(*Entry, error) bool) (ended, more bool, err error) {
	for j.pull() {
		ch := j.cur
		if !ch.whole {
			return false, true, nil
		}
		j.data = nil
		rest := &io.LimitedReader{R: j, N: ch.more}
		for i, e := range ch.entries {
			if i == len(ch.entries)-1 && ch.more > 0 {
				j.data = ch.data[ch.tail:]
				e.Open = openOnce(e.Path, io.LimitReader(rest, e.Size))
			}
			ch.entries[i] = nil // what is not needed any more is not held
			if !yield(e, nil) {
				return false, false, nil
			}
		}
		if ch.end {
			return true, true, nil
		}
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return false, false, err
		}
		if rest.N > 0 {
			return false, false, io.ErrUnexpectedEOF
		}
		if len(j.data) > 0 || j.cur != nil && j.cur.rest != nil {
			return false, true, nil
		}
	}
	return false, true, j.err
}
