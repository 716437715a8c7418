package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/delta"
)

// State is how far a Blob is.
type State uint8

const (
	Empty    State = iota // it has no file
	Partial               // its file is being written; some bytes may be there
	Complete              // all bytes are there; whether they are the right ones is not known
	Verified              // the digest matched; the bytes never change again
	Aborted               // it was given up, and its file is closed
)

func (s State) String() string {
	return [...]string{"empty", "partial", "complete", "verified", "aborted"}[s]
}

// transitions lists where each state may lead. Partial and Complete lead back to
// Partial: the bytes come again, into the same file or, from another store, into
// another one.
var transitions = [...][]State{
	Empty:    {Partial, Aborted},
	Partial:  {Partial, Complete, Aborted},
	Complete: {Partial, Verified, Aborted},
	Verified: {},
	Aborted:  {},
}

// A Blob is the bytes of a snapshot in a file: from the moment when a store begins to
// fetch them, or a step to pack them, to the moment when nothing reads them any more.
//
//	                Fill, Open, Create            all bytes            digest matches
//	Empty ─────────────────────────────▶ Partial ──────────▶ Complete ──────────────▶ Verified
//	  │                                   │   ▲                │ │
//	  │                                   │   └─ written again ┘ │
//	  └──────────── Abort, Close ─────────┴──────────────────────┴──▶ Aborted
//
// A fetch walks it like this. The caller makes an empty blob, and may take a Reader of
// it. Store.Fetch calls Fill (or Open, where the file is there already), and the blob is
// partial: readers, and the hash, follow the bytes as they arrive. If bytes that are
// there are written again (the server refused a range halfway, the disk was full,
// another store is asked), the blob starts over: a Reader that has read some of it is
// aborted, and the hash is worth nothing. Once all bytes are there the blob is complete,
// and Verify makes it verified if the digest of this very file, as it is now, matched.
// Then Store.Put may link an anonymous temp file into the local store instead of copying
// it.
//
// The zero Blob is empty and ready for use; it must not be copied. All methods are safe
// for concurrent use, but only one Fetch at a time may fill a blob. The caller who made
// it closes it, and no store does. Calls that would break the table of transitions, such
// as writing to a verified blob, panic.
type Blob struct {
	mu      sync.Mutex
	state   State
	err     error         // why it is Aborted
	changed chan struct{} // closed at the next change; nil while nothing waits

	digest  digest.Digest
	size    int64 // -1 while it is not known: a snapshot that is being packed
	file    *os.File
	stamped bool     // the file's inode stamp says that its digest matched before
	dir     *os.Root // where the file has a name that Close removes; nil: it has none
	name    string

	have  int64           // bytes from the beginning that are there
	ahead map[int64]int64 // what is there after a gap: where it begins, and ends
	pass  int             // how often it started, which distinguishes bytes from those before

	near atomic.Pointer[delta.Near] // where frames of it are near, while it is fetched; nil: nowhere
}

// ErrAborted says that what was read of a blob is not, or not surely, the blob.
var ErrAborted = errors.New("aborted download")

// set is the only place that changes the state. The caller holds b.mu.
func (b *Blob) set(to State) {
	if !slices.Contains(transitions[b.state], to) {
		panic(fmt.Sprintf("cache: a blob cannot become %s when it is %s", to, b.state))
	}
	b.state = to
	if to == Partial {
		b.have = 0
		b.ahead = make(map[int64]int64)
		b.pass++
	}
	b.notify()
}

// notify wakes what waits for a change. The caller holds b.mu.
func (b *Blob) notify() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// news returns a channel that is closed at the next change. The caller holds b.mu.
func (b *Blob) news() <-chan struct{} {
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

// State returns the blob's state, which may be another one at once.
func (b *Blob) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// Wait waits until the blob is in the state, or beyond it. A complete blob may become
// partial again. The error wraps ErrAborted if the blob was aborted, and is else the
// cause of ctx.
func (b *Blob) Wait(ctx context.Context, s State) error {
	for {
		b.mu.Lock()
		state, err, news := b.state, b.err, b.news()
		b.mu.Unlock()
		switch {
		case state == Aborted:
			return err
		case state >= s:
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// start gives the blob a file of which nothing is there. It closes the one before.
func (b *Blob) start(t tempFile, dg digest.Digest, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(Partial)
	b.drop()
	b.file, b.dir, b.name = t.File, t.dir, t.name
	b.digest, b.size, b.stamped = dg, size, false
	b.complete()
}

// drop closes the file, and removes it if it still has the name of a temp file. The
// caller holds b.mu.
func (b *Blob) drop() error {
	if b.file == nil {
		return nil
	}
	err := b.file.Close()
	b.file = nil
	if b.dir != nil {
		_ = b.dir.Remove(b.name)
		b.dir.Close()
		b.dir = nil
	}
	return err
}

// Fill has fetch write the bytes of d to an anonymous temp file in dir; "" means the
// system's directory for such files. If that disk is full, or cannot be written, fetch is
// called again with a file in the system's. A nil error means that the blob is complete.
// After an error the blob may be filled again. It is for stores that fetch.
func (b *Blob) Fill(dir string, d Descriptor, fetch func(Writer) error) error {
	for {
		f, err := TempFile(dir)
		if err != nil {
			return err
		}
		b.start(tempFile{File: f}, d.Digest, d.Size)
		switch err = fetch(Writer{b: b, file: f}); {
		case err != nil && dir != "" && isFull(err):
			dir = ""
		case err != nil:
			return err
		default:
			return b.whole()
		}
	}
}

// whole returns a *CorruptError if bytes are missing.
func (b *Blob) whole() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == Partial {
		return &CorruptError{Want: b.digest, WantSize: b.size, GotSize: b.have}
	}
	return nil
}

// Open makes f, all of which is there, the blob's file: the blob is complete. stamped
// says that the SHA-256 of this very file matched earlier, and that nothing has written
// to it since: then Verify compares the CRC-32C only, which shows what the medium did. It
// is for stores of files.
func (b *Blob) Open(f *os.File, d Descriptor, stamped bool) {
	b.start(tempFile{File: f}, d.Digest, d.Size)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stamped = stamped
	b.came(0, d.Size)
}

// Write appends to a blob of Create.
func (b *Blob) Write(p []byte) (int, error) {
	b.mu.Lock()
	f, at := b.file, b.have
	b.mu.Unlock()
	return Writer{b: b, file: f}.WriteAt(p, at)
}

// Packed makes a blob of Create verified: dg is the digest of what was written to it.
func (b *Blob) Packed(dg digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.digest, b.size = dg, b.have
	b.complete()
	b.set(Verified)
}

// came notes that n bytes from an offset on are there. The caller holds b.mu.
func (b *Blob) came(off, n int64) {
	if off > b.have {
		b.ahead[off] = max(b.ahead[off], off+n)
		// What continues another piece is merged with it: pieces come in a few runs,
		// each in order.
		for at, end := range b.ahead {
			if end == off {
				b.ahead[at] = off + n
				delete(b.ahead, off)
				break
			}
		}
		return
	}
	b.have = max(b.have, off+n)
	for again := true; again; {
		again = false
		for at, end := range b.ahead {
			if at <= b.have {
				b.have, again = max(b.have, end), true
				delete(b.ahead, at)
			}
		}
	}
	b.complete()
	b.notify()
}

// complete makes a partial blob complete if all bytes are there. The caller holds b.mu.
func (b *Blob) complete() {
	if b.state == Partial && b.size >= 0 && b.have >= b.size {
		b.set(Complete)
	}
}

// rewrite is called before the bytes between two offsets are written. If some of them
// are there, they may have been read, and hashed: the blob starts over.
func (b *Blob) rewrite(f *os.File, off, end int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f != b.file {
		return fmt.Errorf("%w: it has another file by now", ErrAborted)
	}
	if b.size >= 0 && end > b.size && end != math.MaxInt64 {
		return &CorruptError{Want: b.digest, WantSize: b.size, GotSize: end}
	}
	again := off < b.have
	for at, to := range b.ahead {
		again = again || at < end && off < to
	}
	if again || b.state > Complete {
		b.set(Partial)
	}
	return nil
}

// A Writer writes to a partial blob. What it writes where bytes are already makes the
// blob start over. Several ranges may be written at the same time.
type Writer struct {
	b    *Blob
	file *os.File
	at   int64
}

// From returns a Writer whose beginning is n bytes further on.
func (w Writer) From(n int64) Writer {
	w.at += n
	return w
}

// Missing implements delta.Composite.
func (w Writer) Missing(size int64) ([]delta.Range, bool) {
	near := w.b.near.Load()
	if near == nil {
		return nil, false
	}
	return delta.Shift(near.Missing(delta.Range{From: w.at, To: w.at + size}), -w.at), true
}

// Copy implements delta.Composite.
func (w Writer) Copy(ctx context.Context, size int64) ([]delta.Range, error) {
	lost, err := w.b.near.Load().Copy(ctx, Writer{b: w.b, file: w.file}, delta.Range{From: w.at, To: w.at + size})
	return delta.Shift(lost, -w.at), err
}

// Check implements delta.Composite.
func (w Writer) Check(r delta.Range) error {
	return w.b.near.Load().Check(w.file, delta.Range{From: r.From + w.at, To: r.To + w.at})
}

// WriteAt implements io.WriterAt.
func (w Writer) WriteAt(p []byte, off int64) (int, error) {
	off += w.at
	if err := w.b.rewrite(w.file, off, off+int64(len(p))); err != nil {
		return 0, err
	}
	n, err := w.file.WriteAt(p, off)
	if n > 0 {
		w.b.mu.Lock()
		defer w.b.mu.Unlock()
		if w.b.file == w.file {
			w.b.came(off, int64(n))
		}
	}
	return n, err
}

// Truncate drops the bytes after the first n.
func (w Writer) Truncate(n int64) error {
	if err := w.b.rewrite(w.file, w.at+n, math.MaxInt64); err != nil {
		return err
	}
	return w.file.Truncate(w.at + n)
}

// ReadAt reads a complete or verified blob. Use a Reader for one that is partial.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	f, state, err := b.file, b.state, b.err
	b.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case state < Complete:
		panic("cache: ReadAt of a blob that is " + state.String())
	case f == nil:
		return 0, os.ErrClosed
	}
	return f.ReadAt(p, off)
}

// Abort gives up a blob that is not verified, for a reason: its readers end with an
// error, and its file is closed. A blob that is verified, or was aborted before, stays
// as it is.
func (b *Blob) Abort(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state >= Verified {
		return
	}
	b.err = fmt.Errorf("%w: %w", ErrAborted, why)
	b.set(Aborted)
	_ = b.drop() // nothing of it is used
}

// Close closes the file. A blob that is not verified is aborted.
func (b *Blob) Close() error {
	b.Abort(os.ErrClosed)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.drop()
}
