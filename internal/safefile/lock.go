package safefile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// retryLock is how often a lock that is held is asked for again.
const retryLock = 5 * time.Millisecond

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// TryLock opens the file name of dir, which is made if missing, and locks it as
// flock(2) does: how is LOCK_SH or LOCK_EX. Closing the file ends the lock. The
// error is ErrLocked if somebody else has it.
func TryLock(dir *os.Root, name string, how int) (*os.File, error) {
	f, err := OpenFile(dir, name, os.O_RDWR|os.O_CREATE, 0o644) // NFS locks what may be written alone
	if errors.Is(err, fs.ErrPermission) {
		f, err = OpenFile(dir, name, os.O_RDONLY, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := tryLock(f, how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Lock is TryLock, but waits until the lock is free, or ctx ends.
func Lock(ctx context.Context, dir *os.Root, name string, how int) (*os.File, error) {
	for {
		f, err := TryLock(dir, name, how)
		if !errors.Is(err, ErrLocked) {
			return f, err
		}
		select {
		case <-time.After(retryLock):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func tryLock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrLocked
		case !errors.Is(err, unix.EINTR):
			return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}
