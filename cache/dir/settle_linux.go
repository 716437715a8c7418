package dir

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncAll has all of the file system that a file is on outlive a loss of power.
func syncAll(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
