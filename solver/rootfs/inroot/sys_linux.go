package inroot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Renameat is renameat2(2), without the flags where a file system knows none.
func Renameat(fromFD int, from string, toFD int, to string, flags uint) error {
	if err := allowed("rename"); err != nil {
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
func Linkat(fromFD int, from string, toFD int, to string) error {
	if err := allowed("link"); err != nil {
		return err
	}
	return unix.Linkat(fromFD, from, toFD, to, 0)
}

// Unlinkat is unlinkat(2).
func Unlinkat(fd int, name string, flags int) error {
	if err := allowed("unlink"); err != nil {
		return err
	}
	return unix.Unlinkat(fd, name, flags)
}

// Mkdirat is mkdirat(2).
func Mkdirat(fd int, name string, mode uint32) error {
	if err := allowed("mkdir"); err != nil {
		return err
	}
	return unix.Mkdirat(fd, name, mode)
}

// Symlinkat is symlinkat(2).
func Symlinkat(target string, fd int, name string) error {
	if err := allowed("symlink"); err != nil {
		return err
	}
	return unix.Symlinkat(target, fd, name)
}

// Mknodat is mknodat(2).
func Mknodat(fd int, name string, mode uint32, dev int) error {
	if err := allowed("mknod"); err != nil {
		return err
	}
	return unix.Mknodat(fd, name, mode, dev)
}

// Createat makes and opens a file that nothing has the name of, with a mode that
// the umask has taken from.
func Createat(fd int, name string, mode uint32) (int, error) {
	if err := allowed("create"); err != nil {
		return -1, err
	}
	return unix.Openat(fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
}

// Place is rename(2) to a name that nothing has. Where a file system can't see
// to that, it is an error.
func Place(fromFD int, from string, toFD int, to string) error {
	if err := allowed("rename"); err != nil {
		return err
	}
	return unix.Renameat2(fromFD, from, toFD, to, unix.RENAME_NOREPLACE)
}

func pwrite(fd int, p []byte, off int64) (int, error) {
	if err := allowed("write"); err != nil {
		return 0, err
	}
	return unix.Pwrite(fd, p, off)
}

// Allocate makes an open file at least size bytes long, all of them on the disk: none
// is a hole.
func Allocate(f *os.File, size int64) error {
	if err := allowed("allocate"); err != nil {
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
func Ftruncate(fd int, size int64) error {
	if err := allowed("truncate"); err != nil {
		return err
	}
	return unix.Ftruncate(fd, size)
}

// Close closes what was written.
func Close(fd int) error {
	err := allowed("close")
	return errors.Join(err, unix.Close(fd))
}

// Fchown is fchown(2).
func Fchown(fd, uid, gid int) error {
	if err := allowed("chown"); err != nil {
		return err
	}
	return unix.Fchown(fd, uid, gid)
}

// Fchmod is fchmod(2).
func Fchmod(fd int, mode uint32) error {
	if err := allowed("chmod"); err != nil {
		return err
	}
	return unix.Fchmod(fd, mode)
}

// Fsetxattr is fsetxattr(2).
func Fsetxattr(fd int, name string, value []byte) error {
	if err := allowed("setxattr"); err != nil {
		return err
	}
	return unix.Fsetxattr(fd, name, value, 0)
}

// Fremovexattr is fremovexattr(2).
func Fremovexattr(fd int, name string) error {
	if err := allowed("removexattr"); err != nil {
		return err
	}
	return unix.Fremovexattr(fd, name)
}

// Utimensat sets the times of a name, following nothing.
func Utimensat(fd int, name string, atime, mtime unix.Timespec) error {
	if err := allowed("utimens"); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// Futimens sets both times of an open file.
func Futimens(fd int, t unix.Timespec) error {
	if err := allowed("utimens"); err != nil {
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
func Fstatat(fd int, name string, st *unix.Stat_t) error {
	if err := mayRead("stat"); err != nil {
		return err
	}
	return unix.Fstatat(fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

// Syncfs makes all of the file system that an open file is on outlive a loss
// of power.
func Syncfs(fd int) error {
	if err := allowed("syncfs"); err != nil {
		return err
	}
	return unix.Syncfs(fd)
}

// OpenDir opens a folder by its path.
func OpenDir(path string) (int, error) {
	if err := mayRead("open"); err != nil {
		return -1, err
	}
	return unix.Open(path, openFolder, 0)
}

// OpenDirAt opens a folder, following nothing; "." opens another description of
// an open folder.
func OpenDirAt(fd int, name string) (int, error) {
	if err := mayRead("open"); err != nil {
		return -1, err
	}
	return unix.Openat(fd, name, openFolder|unix.O_NOFOLLOW, 0)
}

// OpenAt opens a file to read, following nothing and waiting for nobody.
func OpenAt(fd int, name string) (int, error) {
	if err := mayRead("open"); err != nil {
		return -1, err
	}
	return unix.Openat(fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

// Fstat is fstat(2).
func Fstat(fd int, st *unix.Stat_t) error {
	if err := mayRead("stat"); err != nil {
		return err
	}
	return unix.Fstat(fd, st)
}

func flistxattr(fd int, buf []byte) (int, error) {
	if err := mayRead("listxattr"); err != nil {
		return 0, err
	}
	return unix.Flistxattr(fd, buf)
}

// Fgetxattr is fgetxattr(2).
func Fgetxattr(fd int, name string, buf []byte) (int, error) {
	if err := mayRead("getxattr"); err != nil {
		return 0, err
	}
	return unix.Fgetxattr(fd, name, buf)
}

// Fchownat is fchownat(2), following nothing.
func Fchownat(fd int, name string, uid, gid int) error {
	if err := allowed("chown"); err != nil {
		return err
	}
	return unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// Fchmodat is fchmodat(2), for what is no symlink.
func Fchmodat(fd int, name string, mode uint32) error {
	if err := allowed("chmod"); err != nil {
		return err
	}
	return unix.Fchmodat(fd, name, mode, 0)
}

// SetXattrAt sets an attribute of a name that can't be opened, following nothing.
// There is no *at form of setxattr before Linux 6.13.
func SetXattrAt(fd int, name, attr, value string) error {
	if err := allowed("setxattr"); err != nil {
		return err
	}
	return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), attr, []byte(value), 0)
}

// RemoveXattrAt removes an attribute of a name that can't be opened, following nothing.
func RemoveXattrAt(fd int, name, attr string) error {
	if err := allowed("removexattr"); err != nil {
		return err
	}
	return unix.Lremovexattr(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), attr)
}
