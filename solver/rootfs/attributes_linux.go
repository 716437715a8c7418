package rootfs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// attributes sets owner, mode and extended attributes of an open file or
// folder, in this order: chown clears setuid bits and capabilities. old are the
// attributes that it has; those that the entry lacks are removed.
//
// It returns the mode that the file has to have. A folder that this user could
// then put nothing into, such as those of Go's module cache, has more for now.
func (a *applier) attributes(fd int, e *snapshot.Entry, old map[string][]byte) (mode uint32, err error) {
	if err := a.allow(fchown(fd, e.UID, e.GID)); err != nil {
		return 0, err
	}
	mode = e.Mode & 0o7777
	now := mode
	if e.Kind == snapshot.Dir && a.uid != 0 {
		now |= 0o700
	}
	if err := fchmod(fd, now); err != nil {
		return 0, err
	}
	for name := range old {
		if _, ok := e.Xattrs[name]; ok {
			continue
		}
		if err := a.allow(fremovexattr(fd, name)); err != nil {
			return 0, err
		}
	}
	for name, value := range e.Xattrs {
		if isOverlayMark(name) {
			continue
		}
		if v, ok := old[name]; ok && string(v) == value {
			continue
		}
		if err := a.allow(fsetxattr(fd, name, []byte(value))); err != nil {
			return 0, err
		}
	}
	return mode, nil
}

// attributesAt is attributes, and the time, for what cannot be opened: links,
// devices and pipes. The name is our own temporary one.
func (a *applier) attributesAt(parent *folder, name string, e *snapshot.Entry) error {
	if err := allowed("chown"); err != nil {
		return err
	}
	if err := a.allow(unix.Fchownat(parent.fd, name, e.UID, e.GID, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return err
	}
	if e.Kind != snapshot.Symlink {
		if err := allowed("chmod"); err != nil {
			return err
		}
		if err := unix.Fchmodat(parent.fd, name, e.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	// There is no *at form of setxattr before Linux 6.13.
	p := fmt.Sprintf("/proc/self/fd/%d/%s", parent.fd, name)
	if parent.acl && e.Kind != snapshot.Symlink {
		err := unix.Lremovexattr(p, "system.posix_acl_access")
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	for k, v := range e.Xattrs {
		if isOverlayMark(k) {
			continue
		}
		if err := a.allow(unix.Lsetxattr(p, k, []byte(v), 0)); err != nil {
			return err
		}
	}
	return utimensat(parent.fd, name, timespec(e.ModTime), timespec(e.ModTime))
}

// allow counts what a user without the privilege may not do, as tar does for a
// user, in place of failing. EINVAL: an id that a user namespace doesn't map.
func (a *applier) allow(err error) error {
	if err != nil && !a.privileged &&
		(errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EACCES)) {
		a.res.Unprivileged++
		return nil
	}
	return err
}

// isOverlayMark reports whether an attribute of that name makes a file mean
// something else once it is in a layer of an overlay.
func isOverlayMark(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// managed reports whether snapshots hold attributes of that name. Those of a
// security module belong to the machine.
func managed(name string) bool {
	return strings.HasPrefix(name, "user.") && !isOverlayMark(name) ||
		name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_")
}

// listXattrs returns the managed attributes of an open file, nil for none.
func listXattrs(fd int) (map[string][]byte, error) {
	n, err := unix.Flistxattr(fd, nil)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, n+256)
	if n, err = unix.Flistxattr(fd, buf); err != nil {
		return nil, err
	}
	var all map[string][]byte
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if !managed(name) {
			continue
		}
		size, err := unix.Fgetxattr(fd, name, nil)
		if err != nil {
			continue // gone meanwhile
		}
		value := make([]byte, size)
		if size, err = unix.Fgetxattr(fd, name, value); err != nil {
			continue
		}
		if all == nil {
			all = make(map[string][]byte)
		}
		all[name] = value[:size]
	}
	return all, nil
}
