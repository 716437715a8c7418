package rootfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

func renameat(fromFD int, from string, toFD int, to string, flags uint) error {
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

func linkat(fromFD int, from string, toFD int, to string) error {
	if err := allowed("link"); err != nil {
		return err
	}
	return unix.Linkat(fromFD, from, toFD, to, 0)
}

func unlinkat(fd int, name string, flags int) error {
	if err := allowed("unlink"); err != nil {
		return err
	}
	return unix.Unlinkat(fd, name, flags)
}

func mkdirat(fd int, name string, mode uint32) error {
	if err := allowed("mkdir"); err != nil {
		return err
	}
	return unix.Mkdirat(fd, name, mode)
}

func symlinkat(target string, fd int, name string) error {
	if err := allowed("symlink"); err != nil {
		return err
	}
	return unix.Symlinkat(target, fd, name)
}

func mknodat(fd int, name string, mode uint32, dev int) error {
	if err := allowed("mknod"); err != nil {
		return err
	}
	return unix.Mknodat(fd, name, mode, dev)
}

func createat(fd int, name string) (int, error) {
	if err := allowed("create"); err != nil {
		return -1, err
	}
	return unix.Openat(fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
}

func pwrite(fd int, p []byte, off int64) (int, error) {
	if err := allowed("write"); err != nil {
		return 0, err
	}
	return unix.Pwrite(fd, p, off)
}

func ftruncate(fd int, size int64) error {
	if err := allowed("truncate"); err != nil {
		return err
	}
	return unix.Ftruncate(fd, size)
}

func closeFile(fd int) error {
	err := allowed("close")
	return errors.Join(err, unix.Close(fd))
}

func fchown(fd, uid, gid int) error {
	if err := allowed("chown"); err != nil {
		return err
	}
	return unix.Fchown(fd, uid, gid)
}

func fchmod(fd int, mode uint32) error {
	if err := allowed("chmod"); err != nil {
		return err
	}
	return unix.Fchmod(fd, mode)
}

func fsetxattr(fd int, name string, value []byte) error {
	if err := allowed("setxattr"); err != nil {
		return err
	}
	return unix.Fsetxattr(fd, name, value, 0)
}

func fremovexattr(fd int, name string) error {
	if err := allowed("removexattr"); err != nil {
		return err
	}
	return unix.Fremovexattr(fd, name)
}

func utimensat(fd int, name string, atime, mtime unix.Timespec) error {
	if err := allowed("utimens"); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, name, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

func fstatat(fd int, name string, st *unix.Stat_t) error {
	if err := allowed("stat"); err != nil {
		return err
	}
	return unix.Fstatat(fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

// syncfs makes all of the file system that an open file is on outlive a loss
// of power.
func syncfs(fd int) error {
	if err := allowed("syncfs"); err != nil {
		return err
	}
	return unix.Syncfs(fd)
}
