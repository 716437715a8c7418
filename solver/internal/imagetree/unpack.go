package imagetree

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/solver/internal/filelist"
)

// Unpack writes files of the image into an empty directory: what sources of a COPY name, with
// the links and directories on the way there, or, for nil, all. Modes and times are the
// image's, and owners and attributes where this process may set them; a plain user can read all
// that it has written. It returns the paths that this process may not make: devices.
func (t *Tree) Unpack(ctx context.Context, dir string, sources []string) (leftOut []string, err error) {
	w := wanted{}
	if sources == nil {
		w.all(".", t.root)
	} else {
		w = t.want(sources)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	u := &unpacking{root: root, dir: dir, asRoot: os.Geteuid() == 0, made: make(map[*meta]string)}
	paths := slices.Sorted(maps.Keys(w))
	content := make(map[int]map[int][]string) // by layer and member: the names of each file
	for _, p := range paths {
		switch n := w[p]; n.kind {
		case tar.TypeDir:
			if p != "." {
				err = root.Mkdir(p, 0o700)
			}
		case tar.TypeReg:
			if content[n.meta.layer] == nil {
				content[n.meta.layer] = make(map[int][]string)
			}
			content[n.meta.layer][n.member] = append(content[n.meta.layer][n.member], p)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, layer := range slices.Sorted(maps.Keys(content)) {
		if err := u.files(ctx, t.layers[layer], content[layer], w); err != nil {
			return nil, err
		}
	}
	for _, p := range paths {
		if n := w[p]; n.kind != tar.TypeDir && n.kind != tar.TypeReg {
			if err := u.special(p, n.meta); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range slices.Backward(paths) {
		if n := w[p]; n.kind == tar.TypeDir {
			if err := u.finish(p, n.meta); err != nil {
				return nil, err
			}
		}
	}
	return u.leftOut, nil
}

// Attributes returns what the image says of a file, by its path without links: a plain user
// can't give files all of it.
func (t *Tree) Attributes(p string) (a filelist.Attributes, ok bool) {
	n, err := t.lookup(p)
	if n == nil || err != nil {
		return a, false
	}
	return filelist.Attributes{Mode: n.meta.mode, UID: n.meta.uid, GID: n.meta.gid, Xattrs: n.meta.xattrs}, true
}

type unpacking struct {
	root    *os.Root
	dir     string // the same, for what os.Root lacks; nobody else writes there
	asRoot  bool
	made    map[*meta]string // a name of each file with several
	leftOut []string
}

// files writes the files whose content is in a layer.
func (u *unpacking) files(ctx context.Context, l Layer, names map[int][]string, w wanted) error {
	n, left := 0, len(names)
	for m, content := range l.members(ctx) {
		if f, ok := content.(failed); ok {
			return f.err
		}
		if of := names[n]; of != nil {
			if err := u.file(of, w[of[0]].meta, content); err != nil {
				return fmt.Errorf("%s: %.100q: %w", l.Name, m.Name, err)
			}
			if left--; left == 0 {
				return nil
			}
		}
		n++
	}
	return fmt.Errorf("%s: changed while it was unpacked", l.Name)
}

func (u *unpacking) file(names []string, m *meta, content io.Reader) error {
	f, err := u.root.OpenFile(names[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, other := range names[1:] {
		if err := u.root.Link(names[0], other); err != nil {
			return err
		}
	}
	return u.finish(names[0], m)
}

// special makes what is no directory and no regular file.
func (u *unpacking) special(p string, m *meta) error {
	if first, ok := u.made[m]; ok {
		return u.root.Link(first, p)
	}
	u.made[m] = p
	if m.kind == tar.TypeSymlink {
		if err := u.root.Symlink(m.target, p); err != nil {
			return err
		}
		return u.finish(p, m)
	}
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[m.kind]
	err := mknod(filepath.Join(u.dir, p), kind|0o600, m.major, m.minor)
	if errors.Is(err, unix.EPERM) || errors.Is(err, errors.ErrUnsupported) {
		delete(u.made, m)
		u.leftOut = append(u.leftOut, p)
		return nil
	}
	return cmp.Or(err, u.finish(p, m))
}

// finish gives a file the owner, the attributes, the mode and the time that it has.
func (u *unpacking) finish(p string, m *meta) error {
	mode := m.mode
	if u.asRoot {
		if err := u.root.Lchown(p, m.uid, m.gid); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return err // an id that this user namespace lacks stays root's
		}
	} else if m.kind == tar.TypeDir {
		mode |= 0o700
	} else {
		mode |= 0o400
	}
	for name, value := range m.xattrs {
		if err := u.setXattr(p, name, value); err != nil {
			return err
		}
	}
	if m.kind == tar.TypeSymlink {
		return nil
	}
	perm := fs.FileMode(mode & 0o777)
	for bit, set := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			perm |= set
		}
	}
	if err := u.root.Chmod(p, perm); err != nil {
		return err
	}
	return u.root.Chtimes(p, m.modTime, m.modTime)
}

// setXattr sets an attribute. Labels of SELinux are the machine's, and what this process, or
// the file system, may not have is left out.
func (u *unpacking) setXattr(p, name, value string) error {
	if name == "security.selinux" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
		return nil
	}
	err := lsetxattr(filepath.Join(u.dir, p), name, value)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}
