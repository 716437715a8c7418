package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/ctxio"
	"github.com/clayer/clayer/internal/safefile"
)

// A CorruptError says that a blob is not what its descriptor says. It wraps
// ErrNotCached: such a blob is as good as none.
type CorruptError struct {
	Want, Got digest.Digest // Got is "" where the size alone tells
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

// OpenVerified returns a blob of the store as a file at its beginning, all of
// it checked against its size and SHA-256: nothing that came from a store may
// touch a root before. The caller closes the file.
//
// A store whose Open returns an *os.File is read once for that, in place; of a
// *VerifiedFile the SHA-256 was checked before, and its CRC-32C is enough. From
// any other the blob goes to a temporary file in dir ("": the system's) that
// has no name any more. An Arrival in ctx is told of it.
func OpenVerified(ctx context.Context, s Store, d Descriptor, dir string) (*os.File, error) {
	early := ArrivalOf(ctx)
	if early == nil {
		early = NewArrival(d.Size)
		ctx = WithArrival(ctx, early)
	}
	hashing, stop := context.WithCancel(ctx)
	defer stop()
	hashed := make(chan func() bool, 1)
	go func() { hashed <- early.hash(hashing, d) }()
	rc, err := s.Open(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	sealed, _ := rc.(*VerifiedFile)
	if sealed != nil {
		rc = sealed.File
	}
	file, ok := rc.(*os.File)
	w := io.Discard
	verified := false
	if !ok {
		defer rc.Close()
		stop() // it comes as a stream, and is hashed as such
		<-hashed
		if file, err = TempFile(dir); err != nil {
			return nil, err
		}
		early.From(file)
		w = io.NewOffsetWriter(early.Part(file, 0), 0)
	} else {
		if sealed != nil {
			stop()
			<-hashed
		}
		early.From(file)
		early.Came(0, d.Size)
		info, err := file.Stat()
		switch {
		case err != nil || info.Size() != d.Size:
		case sealed != nil:
			verified = hasCRC(ctx, file, d)
		default:
			verified = (<-hashed)()
		}
	}
	if !verified {
		// A file that is not what it should be, or came anew, is read once more, which
		// says how.
		stop()
		if ok {
			early.Restart() // what was read of it may be something else
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				file.Close()
				return nil, err
			}
		}
		if err := Check(ctx, w, rc, d); err != nil {
			file.Close()
			return nil, err
		}
		early.Came(0, d.Size)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	early.pass()
	return file, nil
}

// A VerifiedFile is a blob whose SHA-256 was verified, in a file that nobody has
// changed since. A store's Open returns it for one that it knows: what the medium has
// spoilt shows in the CRC-32C of its descriptor. Put may keep the file itself if it
// has no name.
type VerifiedFile struct {
	*os.File
}

// hasCRC reports whether all that is read has the size and the CRC-32C of d.
func hasCRC(ctx context.Context, r io.Reader, d Descriptor) bool {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.CopyBuffer(sum, ctxio.Reader(ctx, r), make([]byte, 256<<10))
	return err == nil && n == d.Size && sum.Sum32() == d.CRC32C
}

// TempFile makes a file for a blob, without a name, in dir, which is made if
// missing; "" is the system's directory for such, which is also taken where dir
// can't be used.
func TempFile(dir string) (*os.File, error) {
	if dir != "" {
		if f, err := tempIn(safefile.MakeDir(dir, 0o700)); err == nil {
			return f, nil
		}
	}
	return tempIn(os.OpenRoot(os.TempDir()))
}

// FillTemp makes a file as TempFile does, and has fill write to it. What does not
// fit where dir is, or can't be written there, is written once more elsewhere.
func FillTemp(dir string, fill func(*os.File) error) (*os.File, error) {
	for {
		f, err := TempFile(dir)
		if err != nil {
			return nil, err
		}
		if err = fill(f); err == nil {
			return f, nil
		}
		f.Close()
		if dir == "" || !isFull(err) {
			return nil, err
		}
		dir = ""
	}
}

// isFull reports whether an error says that a file system takes no more.
func isFull(err error) bool {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EFBIG, unix.EROFS, unix.EIO} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func tempIn(dir *os.Root, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if f, err := nameless(dir); err == nil {
		return f, nil
	}
	f, name, err := safefile.CreateTemp(dir, "clayer-blob-")
	if err != nil {
		return nil, err
	}
	if err := dir.Remove(name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
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
