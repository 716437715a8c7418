package dir

import (
	"encoding/json"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
)

// A kept step is what a key file holds.
type kept struct {
	cache.Descriptor
	Seal *seal `json:"seal,omitempty"`
}

// A seal says which file it was, when its step was put, that was known by its
// SHA-256 to be the blob, be it as it was packed, or copied, or read. While the file
// is the same one, unchanged (no program can set a ctime), only the medium can have
// spoilt it, or whoever wrote to it within the clock tick of the Put, and that its
// CRC-32C tells in a fraction of the time. A folder that was copied has no seal that
// fits: its blobs are verified by their SHA-256.
type seal struct {
	Inode   uint64 `json:"inode"`
	Changed int64  `json:"ctime"` // in nanoseconds since 1970
}

// seal seals a blob that is in its place; nil if it can't be.
func (d *Dir) seal(desc cache.Descriptor) *seal {
	var st unix.Stat_t
	if desc.CRC32C == 0 || unix.Stat(d.blobPath(desc.Digest), &st) != nil {
		return nil
	}
	return sealOf(&st)
}

func sealOf(st *unix.Stat_t) *seal {
	return &seal{Inode: st.Ino, Changed: unix.TimespecToNsec(st.Ctim)}
}

// isSealed reports whether a file is the one that its step's seal is of.
func (d *Dir) isSealed(f *os.File, desc cache.Descriptor) bool {
	var k kept
	data, err := os.ReadFile(d.keyPath(desc.Key))
	if err != nil || json.Unmarshal(data, &k) != nil || k.Seal == nil || k.Digest != desc.Digest || k.CRC32C != desc.CRC32C {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && *sealOf(&st) == *k.Seal
}
