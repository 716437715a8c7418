package snapshot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// frameSize is how many bytes of the tar a frame holds, about: small enough that
// a few per core are in memory, large enough to compress well; see
// docs/performance.md.
const frameSize = 2 << 20

// maxFrame bounds the frames that are decoded as a whole, in bytes of the tar.
// Larger ones, which are not ours, are decoded as a stream.
const maxFrame = 8 << 20

// A frame is a run of the tar that is compressed by itself. It begins with the
// header of an entry and ends with an entry; or it is a part of the content of
// one large file, and of nothing else.
type frame struct {
	plain   []byte
	entries []*listed // listed in the table of contents after this frame
	large   *listed   // the file whose content it is a part of, or begins with its last entry
	part    [2]int    // where in plain that content is
	last    bool      // it is the end of that content

	packed []byte
	done   chan struct{} // packed is there
	hashed chan struct{}
}

// A listed entry is one on its way into the table of contents.
type listed struct {
	Listed
	start int // of its content in plain, of a file that lies in one frame
	sum   hash.Hash
}

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
	index  int // of cur

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

// Write adds bytes of the tar. It cuts nowhere: content that is larger than a
// frame comes through large.
func (f *framer) Write(p []byte) (int, error) {
	if err := f.open(); err != nil {
		return 0, err
	}
	f.cur.plain = append(f.cur.plain, p...)
	return len(p), nil
}

// open makes sure that there is a frame to write to.
func (f *framer) open() error {
	if f.cur != nil {
		return nil
	}
	select {
	case f.cur = <-f.free:
		*f.cur = frame{plain: f.cur.plain[:0], packed: f.cur.packed[:0], done: make(chan struct{}), hashed: make(chan struct{})}
		return nil
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

// cutBefore cuts before an entry of that many bytes, header included, if it would
// not fit.
func (f *framer) cutBefore(n int64) {
	if f.cur != nil && len(f.cur.plain) > 0 && int64(len(f.cur.plain))+n > frameSize {
		f.cut()
	}
}

// entry adds an entry whose header, and content if it is in this frame alone,
// was written; content is where that begins.
func (f *framer) entry(e *Entry, content int) {
	l := f.list(e, content)
	f.cur.entries = append(f.cur.entries, l)
}

func (f *framer) list(e *Entry, content int) *listed {
	l := &listed{Listed: Listed{Path: e.Path, Kind: e.Kind, Index: f.index, Offset: int64(content)}, start: content}
	if e.Kind == File {
		l.Size = e.Size
	}
	return l
}

// begin begins the content of a large file, whose header was written.
func (f *framer) begin(e *Entry) *listed {
	l := f.list(e, len(f.cur.plain))
	l.sum = sha256.New()
	f.cur.large, f.cur.part[0] = l, len(f.cur.plain)
	return l
}

// next cuts within a large file if the frame is full and left bytes, which are
// to come, are worth a frame of their own.
func (f *framer) next(l *listed, left int64) error {
	if len(f.cur.plain) < frameSize || left < frameSize/2 {
		return nil
	}
	f.cur.part[1] = len(f.cur.plain)
	f.cut()
	if err := f.open(); err != nil {
		return err
	}
	f.cur.large = l
	return nil
}

// end ends the content of a large file.
func (f *framer) end(l *listed) {
	f.cur.part[1], f.cur.last = len(f.cur.plain), true
	f.cur.entries = append(f.cur.entries, l)
}

// cut sends the frame off.
func (f *framer) cut() {
	if f.cur == nil {
		return
	}
	// None of these blocks: there are no more frames than fit.
	f.work <- f.cur
	f.hash <- f.cur
	f.write <- f.cur
	f.cur = nil
	f.index++
}

// close waits until all is written, or, after a failure, until nothing more is.
func (f *framer) close() error {
	f.cut()
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
		for _, l := range fr.entries {
			if l.Kind == File && l.sum == nil {
				l.Digest = sha256.Sum256(fr.plain[l.start : l.start+int(l.Size)])
			}
		}
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
		if l := fr.large; l != nil {
			l.sum.Write(fr.plain[fr.part[0]:fr.part[1]])
			if fr.last {
				l.sum.Sum(l.Digest[:0])
			}
		}
		close(fr.hashed)
	}
}

func (f *framer) writeAll() {
	for fr := range f.write {
		<-fr.done
		<-fr.hashed
		if f.err == nil {
			if _, f.err = f.w.Write(fr.packed); f.err == nil {
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
