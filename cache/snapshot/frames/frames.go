// Package frames lists the frames of a snapshot: the ranges of its bytes that another
// snapshot may have too.
package frames

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// A List lists the frames of a blob in order, from its first byte to its last: of each its
// size as uvarint, and the SHA-256 of its bytes. Two blobs with a frame of the same digest
// have the same bytes there.
//
// It may come from a foreign descriptor, and is then no more than a hint: whoever puts a
// blob together by it verifies the blob's own digest. nil says that the frames are not known.
type List []byte

// maxList bounds a list, so that a descriptor with it, in base64, stays within the 4 MiB
// that stores take. These are 40,000 frames, or 80 GB of a tar.
const maxList = 3 << 19

// A Frame is a range of a blob.
type Frame struct {
	Offset, Size int64
	Digest       [sha256.Size]byte
}

// Append adds a frame. A list that is too long gets no longer.
func (f List) Append(size int64, sum [sha256.Size]byte) List {
	if len(f) > maxList {
		return f
	}
	return append(binary.AppendUvarint(f, uint64(size)), sum[:]...)
}

// OrNone returns nil for a list that is too long.
func (f List) OrNone() List {
	if len(f) > maxList {
		return nil
	}
	return f
}

// Of returns the frames of a blob of size bytes. A list whose frames do not cover it
// exactly is an error.
func (f List) Of(size int64) ([]Frame, error) {
	if len(f) > maxList {
		return nil, fmt.Errorf("a list of frames of %d bytes, where %d are the most", len(f), maxList)
	}
	list := make([]Frame, 0, len(f)/(sha256.Size+3))
	at := int64(0)
	for rest := []byte(f); len(rest) > 0; {
		n, k := binary.Uvarint(rest)
		if k <= 0 || len(rest) < k+sha256.Size {
			return nil, errors.New("a list of frames that is cut off")
		}
		if n == 0 || n > uint64(size-at) {
			return nil, fmt.Errorf("a frame of %d bytes at %d of a snapshot of %d", n, at, size)
		}
		list = append(list, Frame{at, int64(n), [sha256.Size]byte(rest[k:])})
		at += int64(n)
		rest = rest[k+sha256.Size:]
	}
	if at != size {
		return nil, fmt.Errorf("frames of %d bytes of a snapshot of %d", at, size)
	}
	return list, nil
}

// MarshalJSON writes the list in base64.
func (f List) MarshalJSON() ([]byte, error) { return json.Marshal([]byte(f)) }

// UnmarshalJSON reads what MarshalJSON wrote. Anything else is no list: a descriptor
// is as good without one.
func (f *List) UnmarshalJSON(data []byte) error {
	*f = nil
	data, ok := bytes.CutPrefix(data, []byte(`"`))
	if data = bytes.TrimSuffix(data, []byte(`"`)); !ok || len(data) > base64.StdEncoding.EncodedLen(maxList) {
		return nil
	}
	if list, err := base64.StdEncoding.AppendDecode(nil, data); err == nil && len(list) > 0 {
		*f = list
	}
	return nil
}

// Scan returns the list of a blob's frames, as who packed it would, without decoding it. It
// reads any zstd stream to its end, in constant memory; of a blob that is none, such as a
// tar, it returns an error. A list that would be too long is nil.
func Scan(blob io.Reader) (List, error) {
	s := scan{in: bufio.NewReaderSize(blob, 128<<10), sum: sha256.New()}
	var list List
	for {
		switch err := s.frame(); {
		case err == io.EOF:
			return list.OrNone(), nil
		case err != nil:
			return nil, fmt.Errorf("find the frames: %w", err)
		}
		list = list.Append(s.n, [sha256.Size]byte(s.sum.Sum(nil)))
	}
}

type scan struct {
	in  *bufio.Reader
	sum interface {
		io.Writer
		Sum([]byte) []byte
		Reset()
	}
	n   int64
	buf [16]byte
}

// read reads a few bytes of the frame.
func (s *scan) read(n int) ([]byte, error) {
	b := s.buf[:n]
	_, err := io.ReadFull(s.in, b)
	s.sum.Write(b)
	s.n += int64(n)
	return b, unexpected(err)
}

func (s *scan) skip(n int64) error {
	s.n += n
	_, err := io.CopyN(s.sum, s.in, n)
	return unexpected(err)
}

// frame reads one; io.EOF is the end of the blob.
func (s *scan) frame() error {
	s.sum.Reset()
	s.n = 0
	if _, err := s.in.Peek(1); err != nil {
		return err
	}
	b, err := s.read(4)
	if err != nil {
		return err
	}
	if magic := binary.LittleEndian.Uint32(b); magic&^0xf == Skippable {
		if b, err = s.read(4); err != nil {
			return err
		}
		return s.skip(int64(binary.LittleEndian.Uint32(b)))
	} else if magic != Magic {
		return zstd.ErrMagicMismatch
	}
	if b, err = s.read(1); err != nil {
		return err
	}
	skip, size, checksum := Header(b[0])
	if err := s.skip(int64(skip + size)); err != nil {
		return err
	}
	for last := false; !last; {
		if b, err = s.read(3); err != nil {
			return err
		}
		var n int
		last, n = Block(b)
		if err := s.skip(int64(n)); err != nil {
			return err
		}
	}
	if checksum {
		return s.skip(4)
	}
	return nil
}

// The first bytes of a frame: of one, and of a skippable one but for its last four bits.
const (
	Magic     = 0xfd2fb528
	Skippable = 0x184d2a50
)

// unexpected is for what must not end here.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Header returns what follows the descriptor of a zstd frame (RFC 8878, 3.1.1.1): how
// many bytes of window and dictionary, then how many of the size of the content; and whether
// a checksum ends the frame.
func Header(descriptor byte) (skip, size int, checksum bool) {
	single := descriptor&0x20 != 0
	size = [4]int{0, 2, 4, 8}[descriptor>>6]
	if single && size == 0 {
		size = 1
	}
	skip = [4]int{0, 1, 2, 4}[descriptor&3]
	if !single {
		skip++
	}
	return skip, size, descriptor&4 != 0
}

// Block returns whether a block is the last of its frame, and how many bytes it takes
// after its header.
func Block(b []byte) (last bool, n int) {
	v := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	if n = v >> 3; v>>1&3 == 1 { // one byte, repeated
		n = 1
	}
	return v&1 != 0, n
}
