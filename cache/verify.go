package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/internal/ctxio"
)

// A CorruptError says that a blob is not what its descriptor says. It wraps
// ErrNotCached: such a blob is as good as none.
type CorruptError struct {
	Want, Got digest.Digest // Got is "" where the size differs
	WantSize  int64
	GotSize   int64
}

func (e *CorruptError) Error() string {
	if e.GotSize != e.WantSize {
		return fmt.Sprintf("corrupt blob %s: %d bytes, want %d", e.Want, e.GotSize, e.WantSize)
	}
	return fmt.Sprintf("corrupt blob: %s, want %s", e.Got, e.Want)
}

func (e *CorruptError) Unwrap() error { return ErrNotCached }

// Fetch fetches a blob from a store and verifies it, while it arrives where that is
// possible: nothing that came from a store may touch a root before. After an error the
// blob is as the store left it, and may be fetched from another one. A blob that was put
// together from frames that are near, and is not the right one, is fetched as a whole.
func Fetch(ctx context.Context, s Store, d Descriptor, b *Blob) error {
	err := fetch(ctx, s, d, b)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) && ctx.Err() == nil && b.near.Swap(nil) != nil {
		err = fetch(ctx, s, d, b)
	}
	return err
}

func fetch(ctx context.Context, s Store, d Descriptor, b *Blob) error {
	hashing, stop := context.WithCancel(ctx)
	hashed := make(chan int, 1)
	go func() { hashed <- b.hash(hashing, d) }()
	err := s.Fetch(ctx, d, b)
	if err != nil || b.State() == Verified { // by the stores below this one
		stop()
		<-hashed
		return err
	}
	if b.State() != Complete {
		panic("cache: " + s.Name() + " fetched a blob that is " + b.State().String())
	}
	pass := <-hashed
	stop()
	return b.verify(ctx, d, pass)
}

// hash hashes the bytes as they arrive. It returns the pass whose bytes are the blob, and
// 0 if they are not, or if their inode stamp makes hashing them needless.
func (b *Blob) hash(ctx context.Context, d Descriptor) (pass int) {
	if b.Wait(ctx, Partial) != nil {
		return 0
	}
	b.mu.Lock()
	r, stamped := &Reader{b: b, ctx: ctx, pass: b.pass}, b.stamped
	b.mu.Unlock()
	if stamped || Check(ctx, io.Discard, r, d) != nil {
		return 0
	}
	return r.pass
}

// Verify reads a complete blob and makes it verified. The error is a *CorruptError where
// its bytes are not those of d.
func (b *Blob) Verify(ctx context.Context, d Descriptor) error { return b.verify(ctx, d, 0) }

// verify is Verify where the bytes of a pass were hashed already; 0: none were.
func (b *Blob) verify(ctx context.Context, d Descriptor, hashed int) error {
	b.mu.Lock()
	f, state, pass, stamped := b.file, b.state, b.pass, b.stamped
	b.mu.Unlock()
	if state != Complete {
		panic("cache: Verify of a blob that is " + state.String())
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	known := info.Size() == d.Size && (hashed == pass || stamped && hasCRC(ctx, io.NewSectionReader(f, 0, d.Size), d))
	if !known {
		// A file that is not what it should be, or was written again, is read once more,
		// which reports how it differs. What was read of it may be something else.
		b.startOver()
		if err := Check(ctx, io.Discard, io.NewSectionReader(f, 0, math.MaxInt64), d); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.came(0, d.Size)
	b.set(Verified)
	return nil
}

func (b *Blob) startOver() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(Partial)
}

// hasCRC reports whether all that is read has the size and the CRC-32C of d.
func hasCRC(ctx context.Context, r io.Reader, d Descriptor) bool {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.CopyBuffer(sum, ctxio.Reader(ctx, r), make([]byte, 256<<10))
	return err == nil && n == d.Size && sum.Sum32() == d.CRC32C
}

// Check copies a blob and compares it with what it should be: the error is a
// *CorruptError where it is not that. It reads no more than a byte beyond its size.
func Check(ctx context.Context, w io.Writer, r io.Reader, d Descriptor) error {
	v := digest.Canonical.Digester()
	n, err := io.Copy(io.MultiWriter(v.Hash(), w), io.LimitReader(ctxio.Reader(ctx, r), d.Size+1))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	switch got := v.Digest(); {
	case n != d.Size:
		return &CorruptError{Want: d.Digest, WantSize: d.Size, GotSize: n}
	case got != d.Digest:
		return &CorruptError{Want: d.Digest, Got: got, WantSize: d.Size, GotSize: n}
	}
	return nil
}
