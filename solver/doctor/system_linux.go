package doctor

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The names of file systems by their magic numbers, statfs(2).
var magics = map[int64]string{
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.V9FS_MAGIC: "9p", unix.NFS_SUPER_MAGIC: "nfs", unix.FUSE_SUPER_MAGIC: "fuse",
}

// fileSystem describes the file system that a path is on; free is in bytes.
func fileSystem(path string) (kind string, free int64, readOnly bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", 0, false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	kind, ok := magics[int64(st.Type)]
	if !ok {
		kind = fmt.Sprintf("file system %#x", st.Type)
	}
	return kind, int64(st.Bavail) * int64(st.Bsize), st.Flags&unix.ST_RDONLY != 0, nil
}

// privileges describes what this process may do: its user, and the capabilities that
// matter here.
func privileges() Finding {
	f := Finding{Area: "sandbox", Name: "privileges", OK: true, Text: fmt.Sprintf("uid %d", os.Geteuid())}
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return f
	}
	var has []string
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_SYS_ADMIN, "SYS_ADMIN"}, {unix.CAP_CHOWN, "CHOWN"}, {unix.CAP_DAC_OVERRIDE, "DAC_OVERRIDE"}, {unix.CAP_MKNOD, "MKNOD"}, {unix.CAP_SETFCAP, "SETFCAP"}} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) != 0 {
			has = append(has, c.name)
		}
	}
	if len(has) == 0 {
		f.Text += ", no capabilities"
		f.Cause = Unprivileged
	} else {
		f.Text += ", " + strings.Join(has, " ")
	}
	return f
}
