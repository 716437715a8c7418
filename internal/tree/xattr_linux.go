package tree

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readXattrs reads the attributes that snapshots hold, and the marks of overlayfs.
func (s *seen) readXattrs(fd int) error {
	x := xattrsOf{fd, s.Name, s.kind()}
	size, err := x.list(nil)
	if errors.Is(err, unix.EBADF) && s.kind() != unix.S_IFREG && s.kind() != unix.S_IFDIR {
		return nil // what gVisor says of devices
	}
	if noXattrs(err) || err == nil && size == 0 {
		return nil // as it is for nearly all
	}
	names, err := grow(make([]byte, size+256), x.list)
	if err != nil {
		return fmt.Errorf("list xattrs: %w", err)
	}
	for _, a := range strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		mark, isMark := overlayMark(a)
		if !isMark && !capturedXattr(a) {
			continue
		}
		v, err := grow(make([]byte, 256), func(b []byte) (int, error) { return x.get(a, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read xattr %s: %w", a, err)
		}
		switch {
		case mark == "opaque" && s.isDir() && string(v) == "y":
			s.Flags |= opaque
		case mark == "whiteout" && s.kind() == unix.S_IFREG && s.Size == 0:
			s.Flags |= whiteout
		case mark == "origin":
			s.Flags |= copiedUp
		case isMark:
		default:
			if s.Xattrs == nil {
				s.Xattrs = make(map[string]string)
			}
			s.Xattrs[a] = string(v)
		}
	}
	return nil
}

// xattrsOf is a name of an open directory. It is never opened where that can be
// avoided: it may be a pipe, a device, or unreadable.
//
// Linux has had listxattrat(2) since 6.13. Before, a path through the
// descriptor in /proc does the same, in three times the time. Where /proc is
// not mounted, files and directories are opened, and others have no attributes.
type xattrsOf struct {
	fd   int
	name string
	kind uint32
}

var haveXattrAt = sync.OnceValue(func() bool {
	_, err := listxattrat(unix.AT_FDCWD, "/", nil)
	return !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM)
})

func (x xattrsOf) list(b []byte) (int, error) {
	if haveXattrAt() {
		return listxattrat(x.fd, x.name, b)
	}
	n, err := unix.Llistxattr(x.path(), b)
	if errors.Is(err, unix.ENOENT) {
		return x.opened(func(fd int) (int, error) { return unix.Flistxattr(fd, b) })
	}
	return n, err
}

func (x xattrsOf) get(attr string, b []byte) (int, error) {
	if haveXattrAt() {
		return getxattrat(x.fd, x.name, attr, b)
	}
	n, err := unix.Lgetxattr(x.path(), attr, b)
	if errors.Is(err, unix.ENOENT) {
		return x.opened(func(fd int) (int, error) { return unix.Fgetxattr(fd, attr, b) })
	}
	return n, err
}

func (x xattrsOf) path() string { return "/proc/self/fd/" + strconv.Itoa(x.fd) + "/" + x.name }

func (x xattrsOf) opened(f func(fd int) (int, error)) (int, error) {
	if x.kind != unix.S_IFREG && x.kind != unix.S_IFDIR {
		return 0, unix.ENOTSUP
	}
	fd, err := unix.Openat(x.fd, x.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return f(fd)
}

func listxattrat(fd int, name string, b []byte) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	n, _, errno := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(fd), uintptr(unsafe.Pointer(p)),
		unix.AT_SYMLINK_NOFOLLOW, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// getxattrat is as getxattrat(2) and struct xattr_args of linux/xattr.h say.
func getxattrat(fd int, name, attr string, b []byte) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	a, err := unix.BytePtrFromString(attr)
	if err != nil {
		return 0, err
	}
	args := struct {
		value *byte
		size  uint32
		flags uint32
	}{unsafe.SliceData(b), uint32(len(b)), 0}
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return 0, unix.ENOSYS // the pointer is of 64 bits in the struct
	}
	n, _, errno := unix.Syscall6(unix.SYS_GETXATTRAT, uintptr(fd), uintptr(unsafe.Pointer(p)),
		unix.AT_SYMLINK_NOFOLLOW, uintptr(unsafe.Pointer(a)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// noXattrs reports whether the error means that there are none to be had.
// ENOENT is a file that vanished between two calls; its next reading will not
// have it. EACCES and EPERM: what may not be read can't have been changed.
func noXattrs(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOENT) ||
		errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// overlayMark cuts the overlay prefix off: trusted. in the initial user
// namespace, user. with the mount option userxattr.
func overlayMark(name string) (string, bool) {
	if m, ok := strings.CutPrefix(name, "trusted.overlay."); ok {
		return m, true
	}
	return strings.CutPrefix(name, "user.overlay.")
}

func capturedXattr(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// grow calls f with a larger buffer until the answer fits.
func grow(b []byte, f func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := f(b)
		if errors.Is(err, unix.ERANGE) && len(b) < 1<<20 {
			b = make([]byte, 4*len(b))
			continue
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}
