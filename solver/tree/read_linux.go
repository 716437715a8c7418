package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Read reads the tree at dir. Links are never followed, and every name is
// looked up in its open folder, so that paths may be of any length and a tree
// that changes underway cannot lead the walk outside. What vanishes underway
// is left out. The error wraps fs.ErrNotExist if dir or opt.Below is missing.
func Read(ctx context.Context, dir string, opt Options) (*Reading, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "read tree", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	w := walker{ctx: ctx, opt: opt}
	if opt.Below != "" {
		w.below = strings.Split(opt.Below, "/")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	w.nodes = append(w.nodes, fromStat(&st, opt.Ownerless))
	if err := w.folder(fd, "", 0); err != nil {
		return nil, fmt.Errorf("read tree %s: %w", dir, err)
	}
	w.nodes[0].End = int32(len(w.nodes))
	return &Reading{nodes: w.nodes}, nil
}

type walker struct {
	ctx   context.Context
	opt   Options
	below []string
	nodes []node
}

// folder appends what the open folder holds.
func (w *walker) folder(fd int, at string, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	var names []string
	if depth < len(w.below) {
		names = w.below[depth : depth+1]
	} else {
		var err error
		if names, err = list(fd); err != nil {
			return &os.PathError{Op: "read folder", Path: at, Err: err}
		}
	}
	for _, name := range names {
		p := path.Join(at, name)
		if w.opt.Prune != nil && w.opt.Prune(p) {
			continue
		}
		n, err := stat(fd, name, w.opt.Ownerless)
		if errors.Is(err, unix.ENOENT) && depth >= len(w.below) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "stat", Path: p, Err: err}
		}
		i := len(w.nodes)
		w.nodes = append(w.nodes, n)
		if n.isDir() {
			if err := w.descend(fd, name, p, depth); err != nil {
				return err
			}
		} else if depth+1 < len(w.below) {
			return &os.PathError{Op: "read folder", Path: p, Err: unix.ENOTDIR}
		}
		w.nodes[i].End = int32(len(w.nodes))
	}
	return nil
}

func (w *walker) descend(fd int, name, p string, depth int) error {
	child, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open folder", Path: p, Err: err}
	}
	defer unix.Close(child)
	return w.folder(child, p, depth+1)
}

// list returns the names in the open folder in byte order.
func list(fd int) ([]string, error) {
	// A folder's offset belongs to the open file: a duplicate shares it, and
	// os.File would close fd, so the raw calls are used.
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// stat reads one name of the open folder.
func stat(fd int, name string, ownerless bool) (node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return node{}, err
	}
	n := fromStat(&st, ownerless)
	n.Name = name
	if n.kind() == unix.S_IFCHR && n.Rdev == 0 {
		n.Whiteout = true
		return n, nil
	}
	if n.kind() == unix.S_IFLNK {
		var err error
		if n.Target, err = readlink(fd, name, st.Size); err != nil {
			return node{}, err
		}
	}
	if err := n.readXattrs(fd, name); err != nil {
		return node{}, err
	}
	return n, nil
}

func fromStat(st *unix.Stat_t, ownerless bool) node {
	n := node{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: uint32(st.Nlink),
		Ino: st.Ino, Rdev: uint64(st.Rdev), Size: st.Size, Blocks: st.Blocks,
		MTime: stamp{int64(st.Mtim.Sec), int32(st.Mtim.Nsec)},
		CTime: stamp{int64(st.Ctim.Sec), int32(st.Ctim.Nsec)},
	}
	if ownerless {
		n.UID, n.GID = 0, 0
	}
	return n
}

// readlink does not trust the size that lstat gave: it is 0 in some file systems.
func readlink(fd int, name string, size int64) (string, error) {
	for room := max(int(size)+1, 128); ; room *= 2 {
		b := make([]byte, room)
		n, err := unix.Readlinkat(fd, name, b)
		if err != nil {
			return "", err
		}
		if n < room {
			return string(b[:n]), nil
		}
	}
}

// readXattrs reads the attributes that snapshots keep, and the marks of overlayfs.
//
// There is no listxattrat before Linux 6.13. A path through the descriptor in
// /proc does the same without opening the file, which may be a pipe, a device,
// or unreadable.
func (n *node) readXattrs(fd int, name string) error {
	p := "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name
	size, err := unix.Llistxattr(p, nil)
	if noXattrs(err) || err == nil && size == 0 {
		return nil // as it is for nearly all
	}
	names, err := grow(make([]byte, size+256), func(b []byte) (int, error) { return unix.Llistxattr(p, b) })
	if err != nil {
		return fmt.Errorf("list xattrs: %w", err)
	}
	for _, a := range strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		mark, isMark := overlayMark(a)
		if !isMark && !keptXattr(a) {
			continue
		}
		v, err := grow(make([]byte, 256), func(b []byte) (int, error) { return unix.Lgetxattr(p, a, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read xattr %s: %w", a, err)
		}
		switch {
		case mark == "opaque":
			n.Opaque = n.isDir() && string(v) == "y"
		case mark == "whiteout":
			n.Whiteout = n.kind() == unix.S_IFREG && n.Size == 0
		case isMark:
		default:
			if n.Xattrs == nil {
				n.Xattrs = make(map[string]string)
			}
			n.Xattrs[a] = string(v)
		}
	}
	return nil
}

// noXattrs reports whether the error means that there are none. ENOENT is a
// file that vanished between two calls; its next reading will not have it.
func noXattrs(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOENT)
}

// overlayMark cuts the overlay prefix off: trusted. in the initial user
// namespace, user. with the mount option userxattr.
func overlayMark(name string) (string, bool) {
	if m, ok := strings.CutPrefix(name, "trusted.overlay."); ok {
		return m, true
	}
	return strings.CutPrefix(name, "user.overlay.")
}

func keptXattr(name string) bool {
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
