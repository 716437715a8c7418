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

// openInRoot opens the folder at a path as a process chrooted to the folder of
// root sees it: symlinks are followed, absolute ones and ".." end at the root.
// Names that are swapped meanwhile can't lead out.
func openInRoot(root int, p string, openat2 bool) (int, error) {
	if p == "." {
		return unix.Openat(root, ".", openFolder, 0)
	}
	// openat2 takes PATH_MAX bytes at most; a deeper path is walked.
	if openat2 && len(p) < unix.PathMax-1 {
		for {
			fd, err := unix.Openat2(root, p, &unix.OpenHow{
				Flags:   openFolder,
				Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
			})
			// EAGAIN: something was renamed while ".." was resolved.
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
				return fd, err
			}
		}
	}
	return walkInRoot(root, p)
}

// maxLinks is how many symlinks Linux follows in one path.
const maxLinks = 40

// walkInRoot is openInRoot without openat2: part by part, never following a
// link by the kernel. The folders from the root down are kept open, so that
// ".." is the one that we came through, whatever was moved meanwhile.
func walkInRoot(root int, p string) (int, error) {
	top, err := unix.Openat(root, ".", openFolder, 0)
	if err != nil {
		return -1, err
	}
	stack := []int{top}
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
			if len(stack) > 1 {
				unix.Close(stack[len(stack)-1])
				stack = stack[:len(stack)-1]
			}
			continue
		}
		at := stack[len(stack)-1]
		fd, err := unix.Openat(at, part, openFolder|unix.O_NOFOLLOW, 0)
		if err == nil {
			stack = append(stack, fd)
			continue
		}
		if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
			return -1, err
		}
		target, lerr := readlinkat(at, part)
		if lerr != nil {
			return -1, err // no link: it is no folder
		}
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		if path.IsAbs(target) {
			for _, fd := range stack[1:] {
				unix.Close(fd)
			}
			stack = stack[:1]
		}
		rest = target + "/" + rest
	}
	last := stack[len(stack)-1]
	stack = stack[:len(stack)-1]
	return last, nil
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
	path string // as the entries name it
	used uint64
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

// get returns the folder at a path. It stays open until forget, or until others
// push it out: it is good until the next get.
func (fs *folders) get(p string) (*folder, error) {
	fs.clock++
	if f := fs.open[p]; f != nil {
		f.used = fs.clock
		return f, nil
	}
	fd, err := openInRoot(fs.root, p, fs.openat2)
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
	f := &folder{fd: fd, path: p, used: fs.clock}
	fs.open[p] = f
	return f, nil
}

func (fs *folders) drop(f *folder) {
	unix.Close(f.fd)
	delete(fs.open, f.path)
}

// forget closes all folders: one of them, or a link on the way to one, may be
// something else now.
func (fs *folders) forget() {
	for _, f := range fs.open {
		fs.drop(f)
	}
}

func (fs *folders) close() {
	fs.forget()
	unix.Close(fs.root)
}
