package rootfs

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
)

// attributes sets owner, mode and extended attributes of an open file or
// folder, in this order: chown clears setuid bits and capabilities. old are the
// attributes that it has; those that the entry lacks are removed.
func (a *applier) attributes(fd int, e *snapshot.Entry, old map[string][]byte) error {
	if err := a.owner(e, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, e.Mode&0o7777); err != nil {
		return err
	}
	for name := range old {
		if _, ok := e.Xattrs[name]; ok || !managed(name) {
			continue
		}
		if err := a.allow(unix.Fremovexattr(fd, name)); err != nil {
			return err
		}
	}
	for name, value := range e.Xattrs {
		if v, ok := old[name]; ok && string(v) == value {
			continue
		}
		if err := a.allow(unix.Fsetxattr(fd, name, []byte(value), 0)); err != nil {
			return err
		}
	}
	return nil
}

// attributesAt is attributes, and the time, for what cannot be opened: links,
// devices and pipes.
func (a *applier) attributesAt(parent *folder, name string, e *snapshot.Entry) error {
	err := a.owner(e, func(uid, gid int) error {
		return unix.Fchownat(parent.fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return err
	}
	if e.Kind != snapshot.Symlink {
		// The name is our own temporary one, and no link.
		if err := unix.Fchmodat(parent.fd, name, e.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	if len(e.Xattrs) > 0 {
		// There is no *at form of setxattr before Linux 6.13, and what is not a
		// file or folder can only have attributes that root sets.
		a.res.Unprivileged++
	}
	ts := timespec(e.ModTime)
	return unix.UtimesNanoAt(parent.fd, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// owner sets the owner where it is another than that of what we make.
func (a *applier) owner(e *snapshot.Entry, chown func(uid, gid int) error) error {
	if !a.privileged && e.UID == a.uid && e.GID == a.gid {
		return nil
	}
	return a.allow(chown(e.UID, e.GID))
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

// managed reports whether snapshots hold attributes of that name. Those of a
// security module belong to the machine.
func managed(name string) bool {
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") ||
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
