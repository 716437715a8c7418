// Package descriptor names, lists and makes files by their descriptors.
package descriptor

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Path names an open file. As a prefix it stands for a directory whose own path
// may be too long, or that may have been moved.
func Path(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Names lists the open directory.
func Names(fd int) ([]string, error) {
	dup, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "")
	defer f.Close()
	return f.Readdirnames(-1)
}

// Memory returns a file that is on no file system, open for reading, at its beginning.
func Memory(name string, content []byte, mode uint32) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w := os.NewFile(uintptr(fd), name)
	_, err = w.Write(content)
	if err == nil {
		err = unix.Fchmod(fd, mode)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	// Once more, to read: what is open for writing can't be executed.
	r, err := os.Open(Path(fd))
	return r, errors.Join(err, w.Close())
}
