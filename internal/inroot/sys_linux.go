package inroot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/durability"
)

// Renameat is renameat2(2), without the flags where a file system knows none.
func (s Sys) Renameat(fromFD int, from string, toFD int, to string, flags uint) error {
	if err := s.change("rename"); err != nil {
		return err
	}
	if flags == 0 {
		return unix.Renameat(fromFD, from, toFD, to)
	}
	err := unix.Renameat2(fromFD, from, toFD, to, flags)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // flags: not on every file system
		err = unix.Renameat(fromFD, from, toFD, to)
	}
	return err
}

// Linkat is linkat(2), following nothing.
func (s Sys) Linkat(fromFD int, from string, toFD int, to string) error {
	if err := s.change("link"); err != nil {
		return err
	}
	return unix.Linkat(fromFD, from, toFD, to, 0)
}

// Unlinkat is unlinkat(2).
func (s Sys) Unlinkat(fd int, name string, flags int) error {
	if err := s.change("unlink"); err != nil {
		return err
	}
	return unix.Unlinkat(fd, name, flags)
}

// Mkdirat is mkdirat(2).
func (s Sys) Mkdirat(fd int, name string, mode uint32) error {
	if err := s.change("mkdir"); err != nil {
		return err
	}
	return unix.Mkdirat(fd, name, mode)
}

// Symlinkat is symlinkat(2).
func (s Sys) Symlinkat(target string, fd int, name string) error {
	if err := s.change("symlink"); err != nil {
		return err
	}
	return unix.Symlinkat(target, fd, name)
}

// Mknodat is mknodat(2).
func (s Sys) Mknodat(fd int, name string, mode uint32, dev int) error {
	if err := s.change("mknod"); err != nil {
		return err
	}
	return unix.Mknodat(fd, name, mode, dev)
}

// Createat makes and opens a file that nothing has the name of, with a mode that
// the umask has taken from.
func (s Sys) Createat(fd int, name string, mode uint32) (int, error) {
	if err := s.change("create"); err != nil {
		return -1, err
	}
	return unix.Openat(fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
}

// Place is rename(2) to a name that nothing has. Where a file system can't see
// to that, it is an error.
func (s Sys) Place(fromFD int, from string, toFD int, to string) error {
	if err := s.change("rename"); err != nil {
		return err
	}
	return unix.Renameat2(fromFD, from, toFD, to, unix.RENAME_NOREPLACE)
}

func (s Sys) pwrite(fd int, p []byte, off int64) (int, error) {
	if err := s.change("write"); err != nil {
		return 0, err
	}
	return unix.Pwrite(fd, p, off)
}

// Allocate makes an open file at least size bytes long, all of them on the disk: none
// is a hole.
func (s Sys) Allocate(f *os.File, size int64) error {
	if err := s.change("allocate"); err != nil {
		return &os.PathError{Op: "allocate", Path: f.Name(), Err: err}
	}
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS): // NFS, 9p
			return writeZeros(f, size)
		case err != nil:
			return &os.PathError{Op: "allocate", Path: f.Name(), Err: err}
		}
		return nil
	}
}

func writeZeros(f *os.File, size int64) error {
	at, err := f.Seek(0, io.SeekEnd)
	zeros := make([]byte, 64<<10)
	for err == nil && at < size {
		var n int
		n, err = f.Write(zeros[:min(int64(len(zeros)), size-at)])
		at += int64(n)
	}
	return err
}

// Ftruncate is ftruncate(2).
func (s Sys) Ftruncate(fd int, size int64) error {
	if err := s.change("truncate"); err != nil {
		return err
	}
	return unix.Ftruncate(fd, size)
}

// Close closes what was written.
func (s Sys) CloseFile(fd int) error {
	err := s.change("close")
	return errors.Join(err, unix.Close(fd))
}

// Fchown is fchown(2).
func (s Sys) Fchown(fd, uid, gid int) error {
	if err := s.change("chown"); err != nil {
		return err
	}
	return unix.Fchown(fd, uid, gid)
}

// Fchmod is fchmod(2).
func (s Sys) Fchmod(fd int, mode uint32) error {
	if err := s.change("chmod"); err != nil {
		return err
	}
	return unix.Fchmod(fd, mode)
}

// openPath opens a directory that this user may be unable to read or enter, following
// nothing, for stat and chmodPath alone.
func (s Sys) openPath(fd int, name string) (int, error) {
	if err := s.read("open"); err != nil {
		return -1, err
	}
	return unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// chmodPath is Fchmod for what openPath opened.
func (s Sys) chmodPath(fd int, mode uint32) error {
	if err := s.change("chmod"); err != nil {
		return err
	}
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if err == nil { // since Linux 6.6
		return nil
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

// Fsetxattr is fsetxattr(2).
func (s Sys) Fsetxattr(fd int, name string, value []byte) error {
	if err := s.change("setxattr"); err != nil {
		return err
	}
	return unix.Fsetxattr(fd, name, value, 0)
}

// Fremovexattr is fremovexattr(2).
func (s Sys) Fremovexattr(fd int, name string) error {
	if err := s.change("removexattr"); err != nil {
		return err
	}
	return unix.Fremovexattr(fd, name)
}

// Utimensat sets the times of a name, following nothing.
func (s Sys) Utimensat(fd int, name string, atime, mtime unix.Timespec) error {
	if err := s.change("utimens"); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// Futimens sets both times of an open file.
func (s Sys) Futimens(fd int, t unix.Timespec) error {
	if err := s.change("utimens"); err != nil {
		return err
	}
	times := [2]unix.Timespec{t, t}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Fstatat is fstatat(2), following nothing.
func (s Sys) Fstatat(fd int, name string, st *unix.Stat_t) error {
	if err := s.read("stat"); err != nil {
		return err
	}
	return unix.Fstatat(fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

// Syncfs makes all of the file system that an open file is on outlive a loss
// of power, where that is due at once.
func (s Sys) Syncfs(fd int) error {
	if s.Durability != durability.Durable {
		return nil
	}
	return s.Settle(fd)
}

// Settle is Syncfs at the end of a command.
func (s Sys) Settle(fd int) error {
	if s.Durability == durability.NoSync {
		return nil
	}
	if err := s.change("syncfs"); err != nil {
		return err
	}
	return unix.Syncfs(fd)
}

// OpenDir opens a directory by its path.
func (s Sys) OpenDir(path string) (int, error) {
	if err := s.read("open"); err != nil {
		return -1, err
	}
	return unix.Open(path, dirFlags, 0)
}

// OpenDirAt opens a directory, following nothing; "." opens another description of
// an open directory.
func (s Sys) OpenDirAt(fd int, name string) (int, error) {
	if err := s.read("open"); err != nil {
		return -1, err
	}
	return unix.Openat(fd, name, dirFlags|unix.O_NOFOLLOW, 0)
}

// OpenAt opens a file to read, following nothing and waiting for no writer.
func (s Sys) OpenAt(fd int, name string) (int, error) {
	if err := s.read("open"); err != nil {
		return -1, err
	}
	return unix.Openat(fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

// Fstat is fstat(2).
func (s Sys) Fstat(fd int, st *unix.Stat_t) error {
	if err := s.read("stat"); err != nil {
		return err
	}
	return unix.Fstat(fd, st)
}

func (s Sys) flistxattr(fd int, buf []byte) (int, error) {
	if err := s.read("listxattr"); err != nil {
		return 0, err
	}
	return unix.Flistxattr(fd, buf)
}

// Fgetxattr is fgetxattr(2).
func (s Sys) Fgetxattr(fd int, name string, buf []byte) (int, error) {
	if err := s.read("getxattr"); err != nil {
		return 0, err
	}
	return unix.Fgetxattr(fd, name, buf)
}

// Fchownat is fchownat(2), following nothing.
func (s Sys) Fchownat(fd int, name string, uid, gid int) error {
	if err := s.change("chown"); err != nil {
		return err
	}
	return unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// Fchmodat is fchmodat(2), for what is no symlink.
func (s Sys) Fchmodat(fd int, name string, mode uint32) error {
	if err := s.change("chmod"); err != nil {
		return err
	}
	return unix.Fchmodat(fd, name, mode, 0)
}

// SetXattrAt sets an attribute of a name that can't be opened, following nothing.
// There is no *at form of setxattr before Linux 6.13.
func (s Sys) SetXattrAt(fd int, name, attr, value string) error {
	if err := s.change("setxattr"); err != nil {
		return err
	}
	return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), attr, []byte(value), 0)
}

// RemoveXattrAt removes an attribute of a name that can't be opened, following nothing.
func (s Sys) RemoveXattrAt(fd int, name, attr string) error {
	if err := s.change("removexattr"); err != nil {
		return err
	}
	return unix.Lremovexattr(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), attr)
}
