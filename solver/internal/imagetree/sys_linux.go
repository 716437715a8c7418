package imagetree

import "golang.org/x/sys/unix"

func mknod(path string, mode, major, minor uint32) error {
	return unix.Mknod(path, mode, int(unix.Mkdev(major, minor)))
}

func lsetxattr(path, name, value string) error { return unix.Lsetxattr(path, name, []byte(value), 0) }
