package snapshot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/snapshot/frames"
)

// A frame is a run of the tar that is compressed by itself. It begins with the
// header of an entry and ends with an entry; or it is a part of one large file, and
// of nothing else.
type frame struct {
	plain   []byte
	entries []Listed // listed in the table of contents after this frame
	packed  []byte
	sum     [sha256.Size]byte // of packed
	done    chan struct{}     // packed and sum are there
	hashed  chan struct{}
}

// headerSpace is what the headers of an entry take at most, nearly always.
const headerSpace = 16 << 10

// A framer cuts a tar into frames, and compresses, hashes and writes them, each
// at the same time as the others. Frames are bounded in number, and with them
// the memory.
type framer struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	w      io.Writer
	level  zstd.EncoderLevel
	diffID digest.Digester
	toc    *tocWriter
	list   frames.List
	index  int // of cur
	first  int // index of the frame that the entry begins in

	cur   *frame
	free  chan *frame
	work  chan *frame
	hash  chan *frame
	write chan *frame
	wg    sync.WaitGroup
	err   error // of the writer; read it after wg
}

// frameEncoders are those that no framer has, by level: making one clears megabytes, which
// takes longer than packing a small snapshot.
var frameEncoders [zstd.SpeedBestCompression + 1]sync.Pool

// frameEncoder returns an encoder that compresses one frame at a time.
func frameEncoder(level zstd.EncoderLevel) *zstd.Encoder {
	if enc, ok := frameEncoders[level].Get().(*zstd.Encoder); ok {
		return enc
	}
	return newEncoder(zstd.WithEncoderLevel(level), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(frameSize*2))
}

func newEncoder(options ...zstd.EOption) *zstd.Encoder {
	enc, err := zstd.NewWriter(nil, append(options, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))...)
	if err != nil {
		panic("snapshot: " + err.Error()) // no such option
	}
	return enc
}

func newFramer(ctx context.Context, w io.Writer, opt PackOptions) *framer {
	n := 2*opt.Concurrency + 2
	f := &framer{
		w: w, level: zstd.EncoderLevelFromZstd(opt.Level), toc: newTOCWriter(), diffID: digest.Canonical.Digester(),
		free: make(chan *frame, n), work: make(chan *frame, n), hash: make(chan *frame, n), write: make(chan *frame, n),
	}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	for range n {
		f.free <- &frame{}
	}
	for range opt.Concurrency {
		f.wg.Go(f.compress)
	}
	f.wg.Go(f.hashAll)
	f.wg.Go(f.writeAll)
	return f
}

// open makes sure that there is a frame to write to.
func (f *framer) open() error {
	if f.cur != nil {
		return nil
	}
	select {
	case f.cur = <-f.free:
		*f.cur = frame{
			plain: f.cur.plain[:0], packed: f.cur.packed[:0], entries: f.cur.entries[:0],
			done: make(chan struct{}), hashed: make(chan struct{}),
		}
		return nil
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

// begin begins an entry with its headers, size bytes of content not counted.
func (f *framer) begin(path string, headers []byte, size int64) error {
	if f.cur != nil {
		total := int64(len(headers)) + padded(size)
		if size > largeFile || cutsBefore(path, int64(len(f.cur.plain)), total) {
			f.cut()
		}
	}
	if err := f.open(); err != nil {
		return err
	}
	f.first = f.index
	f.cur.plain = append(f.cur.plain, headers...)
	return nil
}

// next ends the frame where frameSize bytes of a large file are in it, and what is left of
// the content is worth a frame of its own. Positions are those in the content: the headers
// may get longer.
func (f *framer) next(size, done int64) error {
	if size <= largeFile || done == 0 || done%frameSize != 0 || size-done <= largeFile {
		return nil
	}
	f.cut()
	return f.open()
}

// space returns where content of the entry, at least one and at most n bytes of it, is to be
// read to: what follows the current frame.
func (f *framer) space(n int64) []byte {
	p := f.cur.plain
	if int64(cap(p)-len(p)) < n {
		size := max(2*cap(p), len(p)+int(n))
		if size > minCut {
			size = max(maxCut+headerSpace, len(p)+int(n)) // as large as frames get: it need not grow again
		}
		p = append(make([]byte, 0, size), p...)
		f.cur.plain = p
	}
	return p[len(p) : len(p)+int(n)]
}

// end ends the entry, whose content was written.
func (f *framer) end(e *Entry, size int64) {
	f.cur.plain = append(f.cur.plain, zeroBlock[:padded(size)-size]...)
	f.cur.entries = append(f.cur.entries, Listed{Path: e.Path, Kind: e.Kind, Index: f.first, Size: size})
	if size > largeFile {
		f.cut()
	}
}

var zeroBlock [2 * tarBlock]byte

// padded returns how many bytes of a tar size bytes of content take.
func padded(size int64) int64 { return (size + tarBlock - 1) &^ (tarBlock - 1) }

// cut sends the frame off.
func (f *framer) cut() {
	// None of these blocks: there are no more frames than fit.
	f.work <- f.cur
	f.hash <- f.cur
	f.write <- f.cur
	f.cur = nil
	f.index++
}

// close waits until all is written, or, after a failure, until nothing more is.
func (f *framer) close() error {
	if f.cur != nil {
		f.cut()
	}
	close(f.work)
	close(f.hash)
	close(f.write)
	f.wg.Wait()
	f.cancel(nil)
	return f.err
}

func (f *framer) compress() {
	var own [len(frameEncoders)]*zstd.Encoder
	defer func() {
		for level, enc := range own {
			if enc != nil {
				frameEncoders[level].Put(enc)
			}
		}
	}()
	for fr := range f.work {
		level := f.level
		if !compressible(fr.plain) {
			level = zstd.SpeedFastest // tries less, and stores what it can't compress
		}
		if own[level] == nil {
			own[level] = frameEncoder(level)
		}
		fr.packed = own[level].EncodeAll(fr.plain, fr.packed)
		fr.sum = sha256.Sum256(fr.packed)
		close(fr.done)
	}
}

// compressible reports whether compressing a frame is worth the time, by samples
// of it.
func compressible(p []byte) bool {
	const sample = 16 << 10
	if len(p) < 4*sample {
		return true
	}
	for i := range 4 {
		at := i * (len(p) - sample) / 3
		if compress.Estimate(p[at:at+sample]) > 0.02 {
			return true
		}
	}
	return false
}

func (f *framer) hashAll() {
	for fr := range f.hash {
		f.diffID.Hash().Write(fr.plain)
		close(fr.hashed)
	}
}

func (f *framer) writeAll() {
	for fr := range f.write {
		<-fr.done
		<-fr.hashed
		if f.err == nil {
			if _, f.err = f.w.Write(fr.packed); f.err == nil {
				f.list = f.list.Append(int64(len(fr.packed)), fr.sum)
				f.err = f.toc.frame(fr)
			}
			if f.err != nil {
				f.err = fmt.Errorf("pack: %w", f.err)
				f.cancel(f.err)
			}
		}
		f.free <- fr
	}
}
