package rootfs

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// hasOpenat2 is false where the kernel (before 5.6), gVisor or a seccomp filter
// does not know openat2(2).
var hasOpenat2 = sync.OnceValue(func() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
})

const openFolder = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC

// A fileID tells files apart, whatever names lead to them.
type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), st.Ino} }

// openInRoot opens the folder at a path as a process chrooted to the folder of
// root sees it: symlinks are followed, absolute ones and ".." end at the root.
// Names that are swapped meanwhile can't lead out. It returns the folder's path
// without links too.
func openInRoot(root int, p string, openat2 bool) (fd int, real string, err error) {
	// openat2 takes PATH_MAX bytes at most; a deeper path is walked.
	if openat2 && len(p) < unix.PathMax-1 {
		fd, err = openat2Folder(root, p, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS)
		if !errors.Is(err, unix.ELOOP) {
			return fd, path.Clean(p), err
		}
	}
	return walkInRoot(root, p, nil)
}

func openat2Folder(root int, p string, resolve uint64) (int, error) {
	for {
		fd, err := unix.Openat2(root, p, &unix.OpenHow{Flags: openFolder, Resolve: resolve})
		// EAGAIN: something was renamed while ".." was resolved.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// maxLinks is how many symlinks Linux follows in one path.
const maxLinks = 40

// walkInRoot is openInRoot without openat2: part by part, never following a
// link by the kernel. The folders from the root down are kept open, so that
// ".." is the one that we came through, whatever was moved meanwhile.
//
// Of a folder that is missing, missing is told the folder that it should be in,
// its name, and its path without links, and makes it; nil makes none.
func walkInRoot(root int, p string, missing func(at int, name, path string) error) (_ int, real string, err error) {
	top, err := unix.Openat(root, ".", openFolder, 0)
	if err != nil {
		return -1, "", err
	}
	stack, names := []int{top}, []string{}
	defer func() {
		for _, fd := range stack {
			unix.Close(fd)
		}
	}()
	links := 0
	for rest := p; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			if n := len(names); n > 0 {
				unix.Close(stack[n])
				stack, names = stack[:n], names[:n-1]
			}
			continue
		}
		at := stack[len(stack)-1]
		fd, err := unix.Openat(at, part, openFolder|unix.O_NOFOLLOW, 0)
		if errors.Is(err, unix.ENOENT) && missing != nil {
			if err := missing(at, part, path.Join(path.Join(names...), part)); err != nil {
				return -1, "", err
			}
			fd, err = unix.Openat(at, part, openFolder|unix.O_NOFOLLOW, 0)
		}
		if err == nil {
			stack, names = append(stack, fd), append(names, part)
			continue
		}
		if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
			return -1, "", err
		}
		target, lerr := readlinkat(at, part)
		if lerr != nil {
			return -1, "", err // no link: it is no folder
		}
		if links++; links > maxLinks {
			return -1, "", unix.ELOOP
		}
		if path.IsAbs(target) {
			for _, fd := range stack[1:] {
				unix.Close(fd)
			}
			stack, names = stack[:1], names[:0]
		}
		rest = target + "/" + rest
	}
	last := stack[len(stack)-1]
	stack = stack[:len(stack)-1]
	return last, path.Join(".", path.Join(names...)), nil
}

func readlinkat(fd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// folder is an open folder of the root.
type folder struct {
	fd   int
	name string // as the entries name it
	path string // without links
	st   unix.Stat_t
	acl  bool // what is made in it inherits an ACL
	used uint64
}

// newFolder looks at an open folder, which it takes over.
func newFolder(fd int, name, real string) (*folder, error) {
	f := &folder{fd: fd, name: name, path: real}
	if err := unix.Fstat(fd, &f.st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	n, err := unix.Fgetxattr(fd, "system.posix_acl_default", nil)
	f.acl = err == nil && n > 0
	return f, nil
}

// folders opens and keeps the folders that entries are in.
type folders struct {
	root    int
	openat2 bool
	open    map[string]*folder
	clock   uint64
}

// maxOpen is how many folders are kept open.
const maxOpen = 64

func newFolders(dir string, openat2 bool) (*folders, error) {
	fd, err := unix.Open(dir, openFolder, 0)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", dir, err)
	}
	return &folders{root: fd, openat2: openat2, open: make(map[string]*folder)}, nil
}

// get returns the folder at a path. It stays open until forgetBut, or until
// others push it out: it is good until the next get.
func (fs *folders) get(p string) (*folder, error) {
	fs.clock++
	if f := fs.open[p]; f != nil {
		f.used = fs.clock
		return f, nil
	}
	fd, real, err := openInRoot(fs.root, p, fs.openat2)
	if err != nil {
		return nil, err
	}
	return fs.keep(fd, p, real)
}

// getReal is get for a path without links; a link on the way is an error, ELOOP.
func (fs *folders) getReal(p string) (*folder, error) {
	f, err := fs.get(p)
	if err == nil && f.path != p {
		return nil, unix.ELOOP
	}
	return f, err
}

// keep adds an open folder, which it takes over, to those kept open.
func (fs *folders) keep(fd int, p, real string) (*folder, error) {
	f, err := newFolder(fd, p, real)
	if err != nil {
		return nil, err
	}
	if len(fs.open) >= maxOpen {
		var oldest *folder
		for _, f := range fs.open {
			if oldest == nil || f.used < oldest.used {
				oldest = f
			}
		}
		fs.drop(oldest)
	}
	f.used = fs.clock
	fs.open[p] = f
	return f, nil
}

func (fs *folders) drop(f *folder) {
	unix.Close(f.fd)
	delete(fs.open, f.name)
}

// forgetBut closes all folders but parent, which is in use: one of them, or a
// link on the way to one, may be something else now.
func (fs *folders) forgetBut(parent *folder) {
	for _, f := range fs.open {
		if f != parent {
			fs.drop(f)
		}
	}
}

// isBelow reports whether an open folder is the one of that id, or below it.
func (fs *folders) isBelow(fd int, id fileID) (bool, error) {
	const openPath = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	var st unix.Stat_t
	if err := unix.Fstat(fs.root, &st); err != nil {
		return false, err
	}
	top, last := idOf(&st), fileID{}
	at, err := unix.Openat(fd, ".", openPath, 0)
	for err == nil {
		err = unix.Fstat(at, &st)
		// The .. of / is / itself: the folder was moved out of the root.
		if here := idOf(&st); err != nil || here == id || here == top || here == last {
			unix.Close(at)
			return err == nil && here == id, err
		}
		last = idOf(&st)
		below := at
		at, err = unix.Openat(below, "..", openPath, 0)
		unix.Close(below)
	}
	return false, err
}

func (fs *folders) close() {
	fs.forgetBut(nil)
	unix.Close(fs.root)
}
