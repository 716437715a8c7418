package dir

import (
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/internal/safefile"
)

// A stored step is what a key file holds.
type stored struct {
	cache.Descriptor
	Stamp *stamp `json:"seal,omitempty"`
}

// An inode stamp says which file had the SHA-256 of the blob when its step was put,
// whether it was packed, copied or read then. While the file is the same one, unchanged
// (no program can set a ctime), only the medium can have damaged it, or a write within the
// clock tick of the Put. Its CRC-32C shows that in a fraction of the time. The stamps of a
// directory that was copied do not fit, and those of one that others can write to are not
// trusted: blobs are verified by their SHA-256 there.
type stamp struct {
	Inode   uint64 `json:"inode"`
	Changed int64  `json:"ctime"` // in nanoseconds since 1970
}

// stampOf returns the inode stamp of an open file.
func stampOf(f *os.File) (*stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return &stamp{Inode: st.Ino, Changed: unix.TimespecToNsec(st.Ctim)}, nil
}

// stamps reports whether a file is the one of the inode stamp in a key file.
func (s *stored) stamps(root *os.Root, name string, f *os.File, desc cache.Descriptor) bool {
	if s.Stamp == nil || s.Digest != desc.Digest || s.CRC32C != desc.CRC32C {
		return false
	}
	now, err := stampOf(f)
	return err == nil && *now == *s.Stamp && safefile.CheckFile(f) == nil && isOwn(root, name) && isOwn(root, blobsName)
}

// isOwn reports whether only the user can have changed a file of the store:
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
