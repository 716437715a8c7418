package dir

import (
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/safefile"
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
// CRC-32C tells in a fraction of the time. A directory that was copied has no seal
// that fits, and one that others can write to has none that is believed: blobs are
// verified by their SHA-256 there.
type seal struct {
	Inode   uint64 `json:"inode"`
	Changed int64  `json:"ctime"` // in nanoseconds since 1970
}

// sealOf returns the seal of an open file.
func sealOf(f *os.File) (*seal, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return &seal{Inode: st.Ino, Changed: unix.TimespecToNsec(st.Ctim)}, nil
}

// isSealed reports whether a file is the one that its step's seal is of.
func isSealed(root *os.Root, f *os.File, desc cache.Descriptor) bool {
	k, err := readKept(root, desc.Key)
	if err != nil || k.Seal == nil || k.Digest != desc.Digest || k.CRC32C != desc.CRC32C {
		return false
	}
	now, err := sealOf(f)
	return err == nil && *now == *k.Seal && safefile.CheckFile(f) == nil && isOwn(root, keyName(desc.Key)) && isOwn(root, blobsName)
}

// isOwn reports whether nobody but the user can have changed a file of the store:
// it, and all directories on the way to it.
func isOwn(root *os.Root, name string) bool {
	for ; ; name = path.Dir(name) {
		f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return false
		}
		err = safefile.CheckFile(f)
		f.Close()
		if err != nil || name == "." {
			return err == nil
		}
	}
}
