package delta

import (
	"encoding/binary"

	"github.com/clayer/clayer/cache/snapshot/frames"
)

// Pieces cuts a blob of size bytes into pieces, so that most pieces of two blobs are equal if
// most of their frames are: where one ends depends on the frame there alone. Each is of least
// to most bytes, but for the last; without frames, of most. It returns their sizes.
func Pieces(list frames.List, size, least, most int64) (sizes []int64) {
	all, err := list.Of(size)
	if err != nil || len(all) == 0 {
		all = []frames.Frame{{Size: size}}
	}
	piece := int64(0)
	cut := func() {
		if piece > 0 {
			sizes, piece = append(sizes, piece), 0
		}
	}
	add := func(n int64) {
		for n > most { // larger than any piece
			cut()
			piece = most
			cut()
			n -= most
		}
		if piece+n > most {
			cut()
		}
		piece += n
	}
	for _, f := range all {
		add(f.Size)
		if piece >= least && ends(f, least/2) {
			cut()
		}
	}
	cut()
	return sizes
}

// ends reports whether a piece ends with a frame: in a random one of the frames in so many
// bytes. What ends one for more bytes does so for fewer, too.
func ends(f frames.Frame, every int64) bool {
	if f.Size >= every {
		return true
	}
	chance := ^uint64(0) / uint64(every) * uint64(f.Size)
	return binary.BigEndian.Uint64(f.Digest[:]) < chance
}
