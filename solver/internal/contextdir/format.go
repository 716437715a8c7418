package contextdir

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"
)

// The format of a file of what is known. Numbers are little-endian, and so many bytes long:
//
//	"clayer context 1\n"
//	when it was written: seconds (8), nanoseconds (4)
//	of each directory, by path: the length of its path (4) and of its records (4), both
//	the SHA-256 of all this (32)
//
// and a record, of which a directory has them by name:
//
//	the length of the name (2), the name, device (8), inode (8), size (8),
//	mtime (8 and 4), ctime (8 and 4), the SHA-256 of the content (32)
//
// What has another beginning, or another sum, is as good as nothing.
const magic = "clayer context 1\n"

const headerSize = len(magic) + 12

// A record is the digest of a file, and what the file was then.
type record struct {
	name []byte
	version
	sum Sum
}

const recordSize = 3*8 + 2*12 + len(Sum{}) // beside the name

var le = binary.LittleEndian

func (rec record) append(b []byte) []byte {
	b = le.AppendUint16(b, uint16(len(rec.name))) // file systems have names of 255 bytes
	b = append(b, rec.name...)
	for _, n := range []uint64{rec.dev, rec.ino, uint64(rec.size)} {
		b = le.AppendUint64(b, n)
	}
	b = appendTime(appendTime(b, rec.mtime), rec.ctime)
	return append(b, rec.sum[:]...)
}

func appendTime(b []byte, t Time) []byte {
	return le.AppendUint32(le.AppendUint64(b, uint64(t.Sec)), t.Nsec)
}

func timeOfBytes(b []byte) Time { return Time{int64(le.Uint64(b)), le.Uint32(b[8:])} }

func timeFrom(t time.Time) Time { return Time{t.Unix(), uint32(t.Nanosecond())} }

// A reader reads records.
type reader struct{ data []byte }

// next reads the next record; false if there is none.
func (r *reader) next(rec *record) bool {
	if len(r.data) < 2 {
		return false
	}
	n := int(le.Uint16(r.data))
	if len(r.data) < 2+n+recordSize {
		return false
	}
	b := r.data[2:]
	rec.name, b = b[:n:n], b[n:]
	rec.dev, rec.ino, rec.size = le.Uint64(b), le.Uint64(b[8:]), int64(le.Uint64(b[16:]))
	rec.mtime, rec.ctime = timeOfBytes(b[24:]), timeOfBytes(b[36:])
	copy(rec.sum[:], b[48:])
	r.data = b[recordSize:]
	return true
}

// encode returns the file of what is known.
func encode(written Time, dirs map[string][]byte) []byte {
	size := headerSize + sha256.Size
	for dir, records := range dirs {
		size += 8 + len(dir) + len(records)
	}
	b := append(make([]byte, 0, size), magic...)
	b = appendTime(b, written)
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		b = le.AppendUint32(le.AppendUint32(b, uint32(len(dir))), uint32(len(dirs[dir])))
		b = append(append(b, dir...), dirs[dir]...)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

var errFormat = errors.New("not what clayer writes")

// decode reads what encode returns. Records are parts of data.
func decode(data []byte) (written Time, dirs map[string][]byte, err error) {
	if len(data) < headerSize+sha256.Size || string(data[:len(magic)]) != magic {
		return written, nil, errFormat
	}
	b, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if sha256.Sum256(b) != Sum(sum) {
		return written, nil, errFormat
	}
	written = timeOfBytes(b[len(magic):])
	dirs = make(map[string][]byte)
	for b = b[headerSize:]; len(b) > 0; {
		if len(b) < 8 {
			return written, nil, errFormat
		}
		n, m := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
		if b = b[8:]; n+m > uint64(len(b)) {
			return written, nil, errFormat
		}
		dirs[string(b[:n])] = b[n : n+m : n+m]
		b = b[n+m:]
	}
	return written, dirs, nil
}
