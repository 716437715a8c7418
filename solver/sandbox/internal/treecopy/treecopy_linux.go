// Package treecopy copies directories exactly.
package treecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/beneath"
	"github.com/clayer/clayer/solver/sandbox/internal/descriptor"
)

// Tree copies what the directory from holds into the directory to, which exists,
// exactly: owners, modes, times, all xattrs (the marks of overlayfs too), link
// groups, whiteouts, holes. Sockets are left out, and the paths for which skip
// says true. Contents are shared where the file system can.
func Tree(ctx context.Context, from, to string, skip func(string) bool) error {
	c := copier{ctx: ctx, skip: skip, to: to, first: make(map[inode]string)}
	src, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: from, Err: err}
	}
	defer unix.Close(src)
	dst, err := unix.Open(to, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: to, Err: err}
	}
	defer unix.Close(dst)
	if err := c.directory(src, dst, ""); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	return c.attributes(src, ".", dst, ".", &st)
}

// Into copies what an open directory holds into another, without extended attributes, which
// takes no /proc; whole: what the directory itself is too.
func Into(ctx context.Context, from, to int, whole bool) error {
	c := copier{ctx: ctx, first: make(map[inode]string), plain: true}
	if err := c.directory(from, to, ""); err != nil || !whole {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	return c.attributes(from, ".", to, ".", &st)
}

// File copies an open file to a name in a directory, as Into does.
func File(from, dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	err := copyOpen(from, dir, name, &st)
	if err == nil {
		err = (&copier{plain: true}).attributes(from, "", dir, name, &st)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		_ = unix.Unlinkat(dir, name, 0)
	}
	return err
}

type inode struct{ dev, ino uint64 }

type copier struct {
	plain bool // without extended attributes
	ctx   context.Context
	skip  func(string) bool
	to    string
	first map[inode]string // the first copy of each link group
}

func (c *copier) directory(src, dst int, at string) error {
	names, err := descriptor.Names(src)
	if err != nil {
		return &os.PathError{Op: "read directory", Path: at, Err: err}
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		p := filepath.Join(at, name)
		if c.skip != nil && c.skip(p) {
			continue
		}
		if err := c.one(src, dst, name, p); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
	}
	return nil
}

func (c *copier) one(src, dst int, name, p string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return nil
	}
	id := inode{uint64(st.Dev), st.Ino}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.first[id]; ok {
			return c.link(first, dst, name)
		}
		c.first[id] = p
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		err = c.subdirectory(src, dst, name, p)
	case unix.S_IFREG:
		err = copyFile(src, dst, name, &st)
	case unix.S_IFLNK:
		b := make([]byte, unix.PathMax)
		var n int
		if n, err = unix.Readlinkat(src, name, b); err == nil {
			err = unix.Symlinkat(string(b[:n]), dst, name)
		}
	default:
		err = unix.Mknodat(dst, name, kind|0o600, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	return c.attributes(src, name, dst, name, &st)
}

func (c *copier) subdirectory(src, dst int, name, p string) error {
	if err := unix.Mkdirat(dst, name, 0o700); err != nil {
		return err
	}
	const how = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	s, err := unix.Openat(src, name, how, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	d, err := unix.Openat(dst, name, how, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	return c.directory(s, d, p)
}

// link goes through a descriptor: the path of the first copy may be too long for a call.
func (c *copier) link(first string, dst int, name string) error {
	f, err := beneath.Open(c.to, first, unix.O_PATH)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Linkat(unix.AT_FDCWD, descriptor.Path(int(f.Fd())), dst, name, unix.AT_SYMLINK_FOLLOW)
}

func copyFile(src, dst int, name string, st *unix.Stat_t) error {
	s, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return copyOpen(s, dst, name, st)
}

func copyOpen(src, dst int, name string, st *unix.Stat_t) error {
	s, err := unix.FcntlInt(uintptr(src), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(s), name)
	defer in.Close()
	d, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(d), name)
	if st.Blocks*512 < st.Size {
		err = copySparse(in, out, st.Size)
	} else {
		_, err = out.ReadFrom(in) // copy_file_range, and so reflinks
	}
	return errors.Join(err, out.Close())
}

func copySparse(in, out *os.File, size int64) error {
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if errors.Is(err, unix.EINVAL) {
			_, err = out.ReadFrom(in)
			return err
		}
		if err != nil {
			return err
		}
		to, err := unix.Seek(int(in.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := in.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, to-from); err != nil {
			return err
		}
		at = to
	}
	return out.Truncate(size)
}

// attributes are set in this order because chown takes setuid bits and
// capabilities away, and everything sets times.
func (c *copier) attributes(src int, from string, dst int, to string, st *unix.Stat_t) error {
	if err := unix.Fchownat(dst, to, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		// Another owner can be seen in a user namespace, but not given.
		if os.Getuid() != 0 || !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(dst, to, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	if !c.plain && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0) {
		if err := Xattrs(descriptor.Path(src)+"/"+from, descriptor.Path(dst)+"/"+to); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(dst, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// Xattrs copies the extended attributes.
func Xattrs(from, to string) error {
	b := make([]byte, 64<<10) // the kernel's bound, for the list and for a value
	n, err := unix.Llistxattr(from, b)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list xattrs: %w", err)
	}
	v := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00") {
		if name == "security.selinux" || strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(to, "/proc/") {
			continue // the policy's, not ours; or of an overlay that the root itself is
		}
		m, err := unix.Lgetxattr(from, name, v)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read xattr %s: %w", name, err)
		}
		if err := unix.Lsetxattr(to, name, v[:m], 0); err != nil {
			return fmt.Errorf("set xattr %s: %w", name, err)
		}
	}
	return nil
}
