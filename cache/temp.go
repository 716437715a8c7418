package cache

import (
	"errors"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/safefile"
)

// A tempFile is where the bytes of a blob are written. It is anonymous, but for one of
// Create on a file system that has no anonymous files.
type tempFile struct {
	*os.File
	dir  *os.Root // where it has a name; nil: it is anonymous
	name string
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
	if f, err := anonymous(dir); err == nil {
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

// Create returns a partial blob for a snapshot that is packed, in an anonymous temp file
// as TempFile makes it. The caller writes to it, calls Packed, and closes it.
func Create(dir string) (*Blob, error) {
	f, err := TempFile(dir)
	if err != nil {
		return nil, err
	}
	return created(tempFile{File: f}), nil
}

// CreateIn is Create in a directory of a store. Where the file system has no anonymous
// files, the file has a name with that prefix there until Link or Close, so that it need
// not be copied. The blob closes dir, at once if there is an error.
func CreateIn(dir *os.Root, prefix string) (*Blob, error) {
	if f, err := anonymous(dir); err == nil {
		dir.Close()
		return created(tempFile{File: f}), nil
	}
	f, name, err := safefile.CreateTemp(dir, prefix)
	if err != nil {
		dir.Close()
		return nil, err
	}
	return created(tempFile{f, dir, name}), nil
}

func created(t tempFile) *Blob {
	b := &Blob{}
	b.start(t, "", -1)
	return b
}

// Link gives the file of a verified blob the name in dir, which is new there, so that a
// store need not copy it, and returns the file. It is an error where that cannot be, as on
// another file system; and if the file has a name already, so that it is another's.
func (b *Blob) Link(dir *os.Root, name string) (*os.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != Verified {
		panic("cache: Link of a blob that is " + b.state.String())
	}
	if b.file == nil {
		return nil, os.ErrClosed
	}
	to, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer to.Close()
	if b.dir == nil {
		return b.file, linkAnonymous(b.file, to, name)
	}
	from, err := b.dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer from.Close()
	if err := unix.Renameat(int(from.Fd()), b.name, int(to.Fd()), name); err != nil {
		return nil, err
	}
	b.dir.Close()
	b.dir = nil
	return b.file, nil
}

// Digest returns the digest of a verified blob, and "" of another one.
func (b *Blob) Digest() digest.Digest {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != Verified {
		return ""
	}
	return b.digest
}
