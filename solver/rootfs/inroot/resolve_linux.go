package inroot

import (
	"errors"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// HasOpenat2 is false where the kernel (before 5.6), gVisor or a seccomp filter
// does not know openat2(2).
var HasOpenat2 = sync.OnceValue(func() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
})

// openFolder are the flags with which folders are opened.
const openFolder = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC

// IDOf returns the id of a file.
func IDOf(st *unix.Stat_t) FileID { return FileID{uint64(st.Dev), st.Ino} }

// Resolve opens the folder at a path as a process chrooted to the folder of
// root sees it: symlinks are followed, absolute ones and ".." end at the root.
// Names that are swapped meanwhile can't lead out. It returns the folder's path
// without links too.
func Resolve(root int, p string, openat2 bool) (fd int, real string, err error) {
	// openat2 takes PATH_MAX bytes at most; a deeper path is walked.
	if openat2 && len(p) < unix.PathMax-1 {
		fd, err = openat2Folder(root, p, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS)
		if !errors.Is(err, unix.ELOOP) {
			return fd, path.Clean(p), err
		}
	}
	return Walk(root, p, nil)
}

func openat2Folder(root int, p string, resolve uint64) (int, error) {
	if err := mayRead("open"); err != nil {
		return -1, err
	}
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

// Walk is Resolve without openat2: part by part, never following a
// link by the kernel. The folders from the root down are kept open, so that
// ".." is the one that we came through, whatever was moved meanwhile.
//
// Of a folder that is missing, missing is told the folder that it should be in,
// its name, and its path without links, and makes it; nil makes none.
func Walk(root int, p string, missing func(at int, name, path string) error) (_ int, real string, err error) {
	top, err := OpenDirAt(root, ".")
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
		fd, err := OpenDirAt(at, part)
		if errors.Is(err, unix.ENOENT) && missing != nil {
			if err := missing(at, part, path.Join(path.Join(names...), part)); err != nil {
				return -1, "", err
			}
			fd, err = OpenDirAt(at, part)
		}
		if err == nil {
			stack, names = append(stack, fd), append(names, part)
			continue
		}
		if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
			return -1, "", err
		}
		target, lerr := Readlinkat(at, part)
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

// Readlinkat returns the target of a symlink.
func Readlinkat(fd int, name string) (string, error) {
	if err := mayRead("readlink"); err != nil {
		return "", err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
