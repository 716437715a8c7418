package metadata

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/inroot"
	"github.com/clayer/clayer/solver/internal/record"
)

// Attributes sets owner, mode and extended attributes of an open file or
// directory, in this order: chown clears setuid bits and capabilities. old are the
// attributes that it has; those that the entry lacks are removed.
//
// It returns the mode that the file has to have. A directory that this user could
// then put nothing into, such as those of Go's module cache, has more for now.
func (t *Tree) Attributes(fd int, e *snapshot.Entry, old map[string][]byte) (mode uint32, err error) {
	if err := t.allowOwner(e, t.Fchown(fd, e.UID, e.GID)); err != nil {
		return 0, err
	}
	mode = e.Mode & 0o7777
	now := mode
	if t.uid != 0 && (e.Kind == snapshot.Dir || len(e.Xattrs)+len(old) > 0) {
		now |= 0o700 // attributes may be set on what may be written
	}
	if err := t.Fchmod(fd, now); err != nil {
		return 0, err
	}
	for name := range old {
		if _, ok := e.Xattrs[name]; ok {
			continue
		}
		if err := t.allowXattr(t.Fremovexattr(fd, name)); err != nil {
			return 0, err
		}
	}
	for name, value := range e.Xattrs {
		if inroot.IsOverlayMark(name) {
			continue
		}
		if v, ok := old[name]; ok && string(v) == value {
			continue
		}
		if err := t.allowXattr(t.Fsetxattr(fd, name, []byte(value))); err != nil {
			return 0, err
		}
	}
	if now != mode && e.Kind != snapshot.Dir {
		err = t.Fchmod(fd, mode)
	}
	return mode, err
}

// AttributesAt is Attributes, and the time, for what cannot be opened: links,
// devices and pipes. The name is our own temporary one.
func (t *Tree) AttributesAt(parent *inroot.Dir, name string, e *snapshot.Entry) error {
	if err := t.allowOwner(e, t.Fchownat(parent.FD, name, e.UID, e.GID)); err != nil {
		return err
	}
	if e.Kind != snapshot.Symlink {
		if err := t.Fchmodat(parent.FD, name, e.Mode&0o7777); err != nil {
			return err
		}
	}
	if parent.ACL && e.Kind != snapshot.Symlink {
		err := t.RemoveXattrAt(parent.FD, name, "system.posix_acl_access")
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	for k, v := range e.Xattrs {
		if inroot.IsOverlayMark(k) {
			continue
		}
		if err := t.allowXattr(t.SetXattrAt(parent.FD, name, k, v)); err != nil {
			return err
		}
	}
	return t.Utimensat(parent.FD, name, inroot.Timespec(e.ModTime), inroot.Timespec(e.ModTime))
}

// DirMeta is the metadata that a directory has once it is made for an entry: a
// user without the privilege makes none but its own.
func (t *Tree) DirMeta(e *snapshot.Entry) *record.Meta {
	m := record.MetaOf(e)
	if t.Privileged {
		return m
	}
	if groups, err := os.Getgroups(); m.UID != t.uid || m.GID != os.Getegid() && (err != nil || !slices.Contains(groups, m.GID)) {
		m.UID, m.GID = t.uid, os.Getegid()
	}
	return m
}

// allowXattr is Allow, and remembers that the attributes are not the entry's.
func (t *Tree) allowXattr(err error) error {
	before := t.Unprivileged
	err = t.Allow(err)
	t.OtherXattrs = t.OtherXattrs || t.Unprivileged > before
	return err
}

// allowOwner is Allow, and counts the owners that are not root's.
func (t *Tree) allowOwner(e *snapshot.Entry, err error) error {
	before := t.Unprivileged
	err = t.Allow(err)
	if t.Unprivileged > before && (e.UID != 0 || e.GID != 0) {
		t.Foreign.Add(Foreign{1, e.Path, e.UID, e.GID})
	}
	return err
}

// Allow counts what a user without the privilege may not do, as tar does for a
// user, in place of failing. EINVAL: an id that a user namespace doesn't map.
func (t *Tree) Allow(err error) error {
	if err != nil && !t.Privileged &&
		(errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EACCES)) {
		t.Unprivileged++
		return nil
	}
	return err
}
