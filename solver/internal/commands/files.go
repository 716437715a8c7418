package commands

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/ctxio"
	"github.com/clayer/clayer/solver/internal/filelist"
)

// copyTo copies files into a directory, which is empty, and returns the path of what a mount of
// them binds: a directory in it, or a file. They have the times that they were found with, since
// tools compare these with what an earlier RUN has left in a cache mount.
func copyTo(ctx context.Context, fs *filelist.List, dir string) (string, error) {
	top := filepath.Join(dir, "files")
	if fs.Single {
		return top, put(ctx, fs, fs.Items[0], top)
	}
	if err := os.Mkdir(top, 0o700); err != nil {
		return "", err
	}
	for _, it := range fs.Items {
		at := filepath.Join(top, filepath.FromSlash(it.Rel))
		var err error
		switch it.Kind {
		case snapshot.Dir:
			err = os.Mkdir(at, 0o700)
		case snapshot.Symlink:
			if err = os.Symlink(it.Target, at); err == nil {
				err = adorn(it, at)
			}
		default:
			err = put(ctx, fs, it, at)
		}
		if err != nil {
			return "", err
		}
	}
	// A directory that nobody may write to, or whose time counts, is filled first.
	for _, it := range slices.Backward(fs.Items) {
		if it.Kind == snapshot.Dir {
			if err := adorn(it, filepath.Join(top, filepath.FromSlash(it.Rel))); err != nil {
				return "", err
			}
		}
	}
	return top, adorn(fs.Top, top)
}

// put makes what is no directory and no link. A device that this user may not make is left out.
func put(ctx context.Context, fs *filelist.List, it filelist.Item, at string) error {
	kind, special := map[snapshot.Kind]uint32{snapshot.Char: unix.S_IFCHR, snapshot.Block: unix.S_IFBLK, snapshot.Fifo: unix.S_IFIFO}[it.Kind]
	if !special {
		return putFile(ctx, fs, it, at)
	}
	err := unix.Mknod(at, kind|0o600, int(unix.Mkdev(it.Major, it.Minor)))
	switch {
	case errors.Is(err, unix.EPERM):
		return nil
	case err != nil:
		return &os.PathError{Op: "mknod", Path: at, Err: err}
	}
	return adorn(it, at)
}

func putFile(ctx context.Context, fs *filelist.List, it filelist.Item, at string) error {
	from, err := fs.Open(it)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, ctxio.Reader(ctx, from))
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return adorn(it, at)
}

// adorn gives a file what an item has beside its content. The owner comes first, which takes
// capabilities and setuid bits away, and the time last.
func adorn(it filelist.Item, at string) error {
	if os.Geteuid() == 0 {
		if err := os.Lchown(at, it.UID, it.GID); err != nil {
			return err
		}
	}
	for name, value := range it.Xattrs {
		if err := unix.Lsetxattr(at, name, []byte(value), 0); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) {
			return &os.PathError{Op: "set xattr " + name, Path: at, Err: err}
		}
	}
	if it.Kind != snapshot.Symlink {
		if err := unix.Chmod(at, it.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: at, Err: err}
		}
	}
	if it.ModTime().IsZero() {
		return nil
	}
	t := unix.NsecToTimespec(it.ModTime().UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set times", Path: at, Err: err}
	}
	return nil
}
