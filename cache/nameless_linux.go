package cache

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// nameless makes a file that never had a name, and can be given one (O_TMPFILE of
// open(2)), where the file system can.
func nameless(dir *os.Root) (*os.File, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.Openat(int(f.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), "clayer-blob")), nil
}
