package inroot

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Hard marks an error that is not of one path, but of the stream or of the
// record: going on is of no use.
func Hard(err error) error { return hard{err} }

type hard struct{ err error }

func (h hard) Error() string { return h.err.Error() }

func (h hard) Unwrap() error { return h.err }

// IsHard separates errors after which going on is of no use from those of one
// path: a full disk from a file that is immutable. What is no error of the system
// is hard.
func IsHard(err error) bool {
	var h hard
	var errno unix.Errno
	if errors.As(err, &h) || !errors.As(err, &errno) {
		return true
	}
	switch errno {
	case unix.EPERM, unix.EACCES, unix.EROFS, unix.EBUSY, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.EXDEV,
		unix.ENAMETOOLONG, unix.EMLINK, unix.ENOTSUP, unix.ETXTBSY, unix.ENOENT, unix.EINVAL, unix.EEXIST, unix.E2BIG, unix.ENOTEMPTY:
		return false
	}
	return true // ENOSPC, EDQUOT, EIO, EMFILE, ENOMEM, ...
}

// IsFull reports whether an error says that a disk, or a quota, has no space left.
func IsFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// NoSecondLink reports whether an error says that a file can have no second name: on a
// file system without hard links, with too many of them, guarded by
// fs.protected_hardlinks, or, on tmpfs, where names count as inodes, on a full disk.
func NoSecondLink(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) || IsFull(err)
}

// UnlessMissing returns err, but nil for one that says that a path is not there:
// its directory is missing, or no directory, or a link stands in the way.
func UnlessMissing(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}
