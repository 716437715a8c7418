package safefile

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// CreateTemp makes a file in dir whose name is prefix, which may begin with
// directories, and random letters. It returns the name beside the file.
//
// The file is locked until it is closed, which shows Sweep that it is in use:
// rename it first, or remove it.
func CreateTemp(dir *os.Root, prefix string) (*os.File, string, error) {
	for {
		name := prefix + rand.Text()
		f, err := OpenFile(dir, name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, "", err
		}
		// Where there are no locks, Sweep goes by the time.
		if err := LockTemp(f); err == nil && isUnlinked(f) {
			f.Close() // Sweep was faster than the lock
			continue
		}
		return f, name, nil
	}
}

// LockTemp shows Sweep that a file is in use, until it is closed: one of CreateTemp is
// locked, and one without a name has to be before it gets such a name. Nobody but
// Sweep has it locked, for an instant.
func LockTemp(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func isUnlinked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink == 0
}

// abandoned is how old a file of CreateTemp must be to count as abandoned
// where a file system has no locks.
const abandoned = 24 * time.Hour

// Sweep removes the files of CreateTemp that a killed process left in the
// directory name of dir, those that isTemp reports true for, and returns their
// size. What a process has open stays.
func Sweep(dir *os.Root, name string, isTemp func(name string) bool) (freed int64, err error) {
	in, err := OpenDirIn(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer in.Close()
	entries, err := fs.ReadDir(in.FS(), ".")
	errs := []error{err}
	for _, e := range entries {
		if !e.Type().IsRegular() || !isTemp(e.Name()) {
			continue
		}
		size, err := sweep(in, e.Name())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		freed += size
	}
	return freed, errors.Join(errs...)
}

func sweep(dir *os.Root, name string) (freed int64, err error) {
	f, err := OpenFile(dir, name, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	switch err := tryLock(f, unix.LOCK_EX); {
	case errors.Is(err, ErrLocked):
		return 0, nil
	case err != nil && time.Since(info.ModTime()) < abandoned:
		return 0, nil
	}
	if err := dir.Remove(name); err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// WriteFile writes a file of dir that is seen whole or not at all, under a name
// with prefix until then. It is not synced.
func WriteFile(dir *os.Root, name, prefix string, data []byte) error {
	f, temp, err := CreateTemp(dir, prefix)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		if err = dir.Rename(temp, name); err == nil {
			temp = name
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = dir.Remove(temp)
	}
	return err
}
