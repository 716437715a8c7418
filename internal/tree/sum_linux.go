package tree

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/ctxio"
)

// sum reads the content of a file, if its digest is wanted; had says that the
// earlier reading has one. Of a file that may not be read there is none: then
// ctime alone shows its changes.
func (w *walker) sum(fd int, n *node, b *batch, had bool) error {
	if !n.isFile() || w.opt.Sums == SumNone || w.opt.Sums == SumLinked && !n.linked() && !had {
		return nil
	}
	if n.linked() {
		w.mu.Lock()
		x, ok := w.byInode[n.Ino]
		w.mu.Unlock()
		if ok {
			b.sum = &x
			return nil
		}
	}
	x, err := sumAt(w.ctx, fd, n.Name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return nil
		}
		return err
	}
	if n.linked() {
		w.mu.Lock()
		w.byInode[n.Ino] = x
		w.mu.Unlock()
	}
	b.sum = &x
	return nil
}

// sumAt returns the digest of a file's content. Its atime stays where it may.
func sumAt(ctx context.Context, fd int, name string) (x sum, err error) {
	const how = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	file, err := unix.Openat(fd, name, how|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		file, err = unix.Openat(fd, name, how, 0)
	}
	if err != nil {
		return x, err
	}
	f := os.NewFile(uintptr(file), name)
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, ctxio.Reader(ctx, f)); err != nil {
		return x, err
	}
	copy(x[:], h.Sum(nil))
	return x, nil
}
