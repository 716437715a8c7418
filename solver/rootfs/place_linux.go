package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// place makes anything but a folder: aside first, then over what is there, so
// that there is no instant without the name, and what has the old file open or
// mapped keeps it.
func (a *applier) place(ctx context.Context, parent *folder, name string, e *snapshot.Entry) error {
	st, err := stat(parent, name)
	if err != nil {
		return err
	}
	// First, so that the record tells where a kill left a temporary file.
	c, err := a.begin(e, st)
	if err != nil {
		return err
	}
	a.temps++
	temp := a.prefix + strconv.Itoa(a.temps)
	made, err := a.make(ctx, parent, temp, e)
	if err == nil && made {
		err = a.install(parent, temp, name, c, st)
	}
	if err != nil || e.Kind == snapshot.Link && st != nil {
		// Also for a link: rename(2) of two names of one file does nothing.
		_ = unix.Unlinkat(parent.fd, temp, 0)
	}
	return err
}

// install puts what was made over what stands at the name.
func (a *applier) install(parent *folder, temp, name string, c *Change, st *unix.Stat_t) error {
	if st == nil {
		if c == nil {
			return unix.Renameat(parent.fd, temp, parent.fd, name)
		}
		// What another program put there meanwhile is in no record, and stays.
		err := unix.Renameat2(parent.fd, temp, parent.fd, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not on every file system
			err = unix.Renameat(parent.fd, temp, parent.fd, name)
		}
		return err
	}
	if err := a.save(parent, name, c, st); err != nil {
		return err
	}
	if err := unix.Renameat(parent.fd, temp, parent.fd, name); err != nil {
		return errors.Join(err, a.putBack(parent, name, c))
	}
	return nil
}

// make makes the entry's object under a temporary name. It reports false for
// one that this user may not make.
func (a *applier) make(ctx context.Context, parent *folder, temp string, e *snapshot.Entry) (bool, error) {
	switch e.Kind {
	case snapshot.File:
		return true, a.file(ctx, parent, temp, e)
	case snapshot.Link:
		dir, name := path.Split(e.Target)
		// Not by get: the target's folder may push the entry's out.
		fd, _, err := openInRoot(a.root, path.Clean(dir), a.openat2)
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		return true, unix.Linkat(fd, name, parent.fd, temp, 0)
	case snapshot.Symlink:
		if err := unix.Symlinkat(e.Target, parent.fd, temp); err != nil {
			return false, err
		}
	case snapshot.Char, snapshot.Block, snapshot.Fifo:
		mode := map[snapshot.Kind]uint32{snapshot.Char: unix.S_IFCHR, snapshot.Block: unix.S_IFBLK, snapshot.Fifo: unix.S_IFIFO}[e.Kind]
		err := unix.Mknodat(parent.fd, temp, mode|0o600, int(unix.Mkdev(e.Major, e.Minor)))
		if errors.Is(err, unix.EPERM) && !a.privileged {
			a.res.Unprivileged++
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, a.attributesAt(parent, temp, e)
}

func (a *applier) file(ctx context.Context, parent *folder, temp string, e *snapshot.Entry) (err error) {
	fd, err := unix.Openat(parent.fd, temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := unix.Close(fd); err == nil {
			err = cerr // a quota that is full may be told only now
		}
	}()
	if err := a.content(ctx, fd, e); err != nil {
		return err
	}
	var old map[string][]byte
	if parent.acl {
		if old, err = listXattrs(fd); err != nil {
			return err
		}
	}
	if _, err := a.attributes(fd, e, old); err != nil {
		return err
	}
	ts := []unix.Timespec{timespec(e.ModTime), timespec(e.ModTime)}
	return unix.UtimesNanoAt(parent.fd, temp, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// content writes a file; holes are not written.
func (a *applier) content(ctx context.Context, fd int, e *snapshot.Entry) error {
	if e.Size == 0 {
		return nil
	}
	data := e.Data
	if data == nil {
		data = []snapshot.Extent{{Length: e.Size}}
	}
	r, err := e.Open()
	if err != nil {
		return hard{err}
	}
	defer r.Close()
	var at int64
	for _, x := range data {
		// In this form no sum of the two can overflow.
		if x.Offset < at || x.Length < 0 || x.Offset > e.Size || x.Length > e.Size-x.Offset {
			return unsafe(e.Path, fmt.Sprintf("data at %d, %d bytes, in a file of %d", x.Offset, x.Length, e.Size))
		}
		if err := a.copy(ctx, -1, 0, r, x.Offset-at); err != nil {
			return err
		}
		if err := a.copy(ctx, fd, x.Offset, r, x.Length); err != nil {
			return err
		}
		at = x.Offset + x.Length
	}
	if err := a.copy(ctx, -1, 0, r, e.Size-at); err != nil {
		return err
	}
	if at < e.Size {
		if err := unix.Ftruncate(fd, e.Size); err != nil {
			return err
		}
	}
	a.res.Bytes += e.Size
	return nil
}

// copy copies n bytes to an open file at an offset; -1 drops them.
func (a *applier) copy(ctx context.Context, fd int, off int64, r io.Reader, n int64) error {
	for n > 0 {
		if err := context.Cause(ctx); err != nil {
			return hard{err}
		}
		k, err := r.Read(a.buf[:min(int64(len(a.buf)), n)])
		if fd >= 0 {
			if err := writeAt(fd, a.buf[:k], off); err != nil {
				return err
			}
		}
		off, n = off+int64(k), n-int64(k)
		if err == io.EOF && n > 0 {
			return hard{io.ErrUnexpectedEOF}
		}
		if err != nil && err != io.EOF {
			return hard{err}
		}
	}
	return nil
}

func writeAt(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		n = max(n, 0)
		p, off = p[n:], off+int64(n)
	}
	return nil
}
