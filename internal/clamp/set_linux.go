package clamp

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/beneath"
)

// Set gives the items, below dir, the time. What is gone meanwhile, and what this user may not
// change, stays as it is.
func Set(dir string, items []Item, to time.Time) error {
	parents := beneath.Parents{Dir: dir}
	defer parents.Close()
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: to.Unix(), Nsec: int64(to.Nanosecond())}}
	for _, it := range items {
		fd, name, err := parents.Of(it.Path)
		if err == nil && it.Source != nil {
			err = rewrite(fd, name, *it.Source, to)
		}
		if err == nil {
			err = unix.UtimesNanoAt(fd, name, times, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil && !stays(err) {
			return &os.PathError{Op: "set the time of", Path: it.Path, Err: err}
		}
	}
	return nil
}

// stays reports whether an error of one item is none of all.
func stays(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.EROFS, unix.ETXTBSY, unix.ENOTSUP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return beneath.Moved(err)
}

// rewrite has the header of a compiled module fit its source. The file itself is written to, so
// that all its names have it.
func rewrite(dir int, name string, of Source, to time.Time) error {
	fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if stays(err) {
			return nil // its time is set all the same
		}
		return err
	}
	defer unix.Close(fd)
	head := make([]byte, header)
	n, err := unix.Pread(fd, head, 0)
	if err != nil {
		return err
	}
	patched, ok := patch(head[:n], of, to)
	if !ok {
		return nil
	}
	_, err = unix.Pwrite(fd, patched, 0)
	return err
}
