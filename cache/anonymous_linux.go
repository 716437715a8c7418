package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/safefile"
)

// anonymous makes a file that has no name, and can be given one (O_TMPFILE of open(2)),
// where the file system can.
func anonymous(dir *os.Root) (*os.File, error) {
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

// linkAnonymous gives an anonymous file a name in a directory.
func linkAnonymous(f, dir *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Nlink > 0 {
		return errors.New("the file has a name already")
	}
	// Another process that sweeps the directory takes no lock of the store for it. Without
	// a lock of the file it goes by the time, which is of now.
	_ = safefile.LockTemp(f)
	// AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH: see open(2), O_TMPFILE.
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), int(dir.Fd()), name, unix.AT_SYMLINK_FOLLOW)
}
