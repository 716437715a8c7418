package testexec

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// released waits until nobody has a file open for writing: the kernel gives a lease for
// reading only then. Forks that Go knows nothing of are not held back by a lock.
func released(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 1000 {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		if !errors.Is(err, unix.EAGAIN) { // it is ours, or this file system has none
			_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New(name + " stays open for writing")
}
