package byhand

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Held is what an install may replace or delete, open: what it did replace is read then, and
// nothing is copied of the rest. A manager that unlinks a file, or renames another one to its
// place, leaves the old one to those who have it open. One that is written over is not read.
type Held struct {
	root string
	at   map[string]*held // by path, relative to the root
	left int              // how many more files may be open
	fds  []int
}

// held is a file, a directory or a link that was there before an install.
type held struct {
	fd      int         // of a file; -1 for anything else
	stat    unix.Stat_t // as it was
	target  string      // of a link
	names   []string    // in a directory
	unknown bool        // of a directory: not all that is in it could be held
}

// maxHeld bounds how many files are open, which takes about 1 KiB of the kernel's memory each.
const maxHeld = 100_000

// Hold opens what is at the paths of a root, and in directories there. What it cannot open,
// it leaves out.
func Hold(root string, paths []string) *Held {
	h := &Held{root: root, at: make(map[string]*held), left: maxHeld}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		h.left = int(min(maxHeld, limit.Cur/2))
	}
	for _, p := range paths {
		if dir, err := filepath.EvalSymlinks(filepath.Join(root, filepath.Dir(p))); err == nil {
			if rel, err := filepath.Rel(root, dir); err == nil && filepath.IsLocal(rel) {
				h.hold(path.Join(rel, path.Base(p)), 0)
			}
		}
	}
	return h
}

// hold reports whether all at a path is held. dev is the file system above; 0: whichever.
func (h *Held) hold(p string, dev uint64) bool {
	if x := h.at[p]; x != nil {
		return !x.unknown
	}
	name := filepath.Join(h.root, p)
	x := &held{fd: -1}
	if h.left == 0 {
		return false // nor are more names read
	}
	if unix.Lstat(name, &x.stat) != nil || dev != 0 && x.stat.Dev != dev {
		return false
	}
	switch x.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return false
		}
		x.fd = fd
		h.left--
		h.fds = append(h.fds, fd)
	case unix.S_IFLNK:
		target, err := os.Readlink(name)
		if err != nil {
			return false
		}
		x.target = target
	case unix.S_IFDIR:
		f, err := os.Open(name)
		if err != nil {
			return false
		}
		x.names, err = f.Readdirnames(-1)
		f.Close()
		x.unknown = err != nil
		for _, base := range x.names {
			if !h.hold(path.Join(p, base), x.stat.Dev) {
				x.unknown = true
			}
		}
	default:
		return false
	}
	h.at[p] = x
	return !x.unknown
}

// Close closes what is held.
func (h *Held) Close() {
	if h == nil {
		return
	}
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	h.fds, h.at = nil, nil
}

// errNotHeld says that what stood at a path is not known any more.
var errNotHeld = errors.New("not held")

// Save writes what stood at a path of the root under a name in an open directory. It
// reports whether that is known; where it is not, nothing is left there.
func (h *Held) Save(p string, dir int, name string) (bool, error) {
	if h == nil || h.at[p] == nil {
		return false, nil
	}
	err := h.save(p, dir, name)
	if err == nil {
		return true, nil
	}
	at := filepath.Join("/proc/self/fd", strconv.Itoa(dir), name)
	err = errors.Join(os.RemoveAll(at), err)
	if errors.Is(err, errNotHeld) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	return false, err
}

func (h *Held) save(p string, dir int, name string) error {
	x := h.at[p]
	if x == nil || x.unknown {
		return errNotHeld
	}
	switch {
	case x.fd >= 0:
		if err := x.copy(dir, name); err != nil {
			return err
		}
	case x.stat.Mode&unix.S_IFMT == unix.S_IFLNK:
		if err := unix.Symlinkat(x.target, dir, name); err != nil {
			return err
		}
	default:
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return err
		}
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for _, base := range x.names {
			if err == nil {
				err = h.save(path.Join(p, base), fd, base)
			}
		}
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return x.metadata(dir, name)
}

// copy copies a file, unless it was written to since.
func (x *held) copy(dir int, name string) error {
	var now unix.Stat_t
	if err := unix.Fstat(x.fd, &now); err != nil {
		return err
	}
	if now.Size != x.stat.Size || now.Mtim != x.stat.Mtim {
		return errNotHeld
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, min(now.Size+1, 1<<20))
	for at := int64(0); ; {
		n, err := unix.Pread(x.fd, buf, at)
		for done := 0; done < n && err == nil; {
			var m int
			m, err = unix.Pwrite(fd, buf[done:n], at+int64(done))
			done += m
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		at += int64(n)
	}
	return x.attributes(fd)
}

// attributes gives a copy the extended attributes.
func (x *held) attributes(fd int) error {
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(x.fd, list)
	if err != nil || n == 0 {
		return nil // there are none here
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		size, err := unix.Fgetxattr(x.fd, name, value)
		if err != nil || unix.Fsetxattr(fd, name, value[:size], 0) != nil {
			return errNotHeld
		}
	}
	return nil
}

func (x *held) metadata(dir int, name string) error {
	st := &x.stat
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil && (os.Geteuid() == 0 || !errors.Is(err, unix.EPERM)) {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(dir, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
