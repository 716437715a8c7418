package snapshot

import "hash/crc32"

// Where frames are cut depends on the paths and sizes of entries nearby alone, so that a
// package that is added, removed or changed leaves the frames of the others byte for byte as
// they are: a store that has those need not get them again.
//
//   - A large file has frames of its own, cut at positions in its content.
//   - Of other entries, one in about 2 MiB of the tar begins a frame, chosen by its path: a
//     path stays, where contents and times change. Large entries are chosen more often.
//   - No frame is shorter than minCut, but those before and after a large file, and at the end;
//     and none is longer than maxCut.
//
// docs/format.md specifies the rule, for programs that make the same bytes. Readers do not
// depend on it.
const (
	frameSize = 2 << 20 // of the tar in a frame, about; docs/performance.md says why
	minCut    = frameSize / 2
	maxCut    = frameSize * 3 / 2
	largeFile = frameSize / 2 // bytes of content of a file that has frames of its own

	// One in that many bytes begins a frame, in one that is shorter or longer than frameSize.
	rarely = 2 << 20
	often  = 256 << 10
)

// maxFrame bounds the frames that are decoded as a whole, in bytes of the tar.
// Larger ones, which are not ours, are decoded as a stream.
const maxFrame = 8 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// cutsBefore reports whether a frame that holds n bytes of the tar ends before an entry of
// size bytes, its headers and padding included.
func cutsBefore(path string, n, size int64) bool {
	if n+size > maxCut {
		return n > 0
	}
	if n < minCut {
		return false
	}
	one := int64(rarely)
	if n >= frameSize {
		one = often
	}
	// The factor spreads the sum: those of names that differ in a digit are near each other.
	h := crc32.Checksum([]byte(path), castagnoli) * 2654435769
	return int64(h) < size<<32/one
}
