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
func HasOpenat2() bool { return hasOpenat2() }

var hasOpenat2 = sync.OnceValue(func() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
})

// dirFlags are the flags with which directories are opened.
const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC

// IDOf returns the id of a file.
func IDOf(st *unix.Stat_t) FileID { return FileID{uint64(st.Dev), st.Ino} }

// Resolve opens the directory at a path as a process chrooted to the directory of
// root sees it: symlinks are followed, absolute ones and ".." end at the root.
// Names that are swapped meanwhile can't lead out. It returns the directory's path
// without links too.
func (s Sys) Resolve(root int, p string, openat2 bool) (fd int, real string, err error) {
	for at, rest := root, p; openat2; {
		if len(rest) >= unix.PathMax-1 && strings.Contains(p, "..") {
			break // it may lead out of what one call takes
		}
		fd, n, err := s.descend(at, rest, true)
		if at != root {
			unix.Close(at)
		}
		if errors.Is(err, unix.ELOOP) {
			break
		}
		if err != nil || n == len(rest) {
			return fd, path.Clean(p), err
		}
		at, rest = fd, rest[n+1:]
	}
	return s.Walk(root, p, nil, nil)
}

// descend opens a directory on the way down a path, through no link: as far as one call
// goes. It returns how much of the path that is.
func (s Sys) descend(at int, p string, openat2 bool) (fd, n int, err error) {
	n = OneCall(p, openat2)
	if openat2 {
		fd, err = s.openat2Dir(at, p[:n], unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS)
	} else {
		fd, err = s.OpenDirAt(at, p[:n])
	}
	return fd, n, err
}

// OneCall returns how many bytes of a path can be gone down, through no link, by one
// system call: a name, or with openat2 as many as the kernel takes.
func OneCall(p string, openat2 bool) int {
	first := strings.IndexByte(p, '/')
	switch {
	case first < 0 || openat2 && len(p) < unix.PathMax-1:
		return len(p)
	case !openat2:
		return first
	}
	return max(first, strings.LastIndexByte(p[:unix.PathMax-1], '/'))
}

func (s Sys) openat2Dir(root int, p string, resolve uint64) (int, error) {
	if err := s.read("open"); err != nil {
		return -1, err
	}
	for {
		fd, err := unix.Openat2(root, p, &unix.OpenHow{Flags: dirFlags, Resolve: resolve})
		// EAGAIN: something was renamed while ".." was resolved.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// maxLinks is how many symlinks Linux follows in one path.
const maxLinks = 40

// Walk is Resolve without openat2: part by part, never following a
// link by the kernel. The directories from the root down are held open, so that
// ".." is the one that we came through, whatever was moved meanwhile.
//
// Of a directory that is missing, missing is called with the directory that it should be in,
// its name, and its path without links, and makes it; nil makes none. Of one that may not
// be opened, denied is called alike.
func (s Sys) Walk(root int, p string, missing, denied func(at int, name, path string) error) (_ int, real string, err error) {
	top, err := s.OpenDirAt(root, ".")
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
		fd, err := s.OpenDirAt(at, part)
		mend := missing
		if errors.Is(err, unix.EACCES) {
			mend = denied
		}
		if mend != nil && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES)) {
			if err := mend(at, part, path.Join(path.Join(names...), part)); err != nil {
				return -1, "", err
			}
			fd, err = s.OpenDirAt(at, part)
		}
		if err == nil {
			stack, names = append(stack, fd), append(names, part)
			continue
		}
		if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
			return -1, "", err
		}
		target, lerr := s.Readlinkat(at, part)
		if lerr != nil {
			return -1, "", err // no link: it is no directory
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
func (s Sys) Readlinkat(fd int, name string) (string, error) {
	if err := s.read("readlink"); err != nil {
		return "", err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
