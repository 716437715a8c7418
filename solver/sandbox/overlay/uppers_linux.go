package overlay

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/order"
)

// minUpper is the space that a file system needs to be taken for views in place
// of the one that was meant to have them.
const minUpper = 512 << 20

// uppers names directories for views on other file systems than that of work: on
// disks first, the one with most space first of all, then in memory. The name is
// the same each time, so that what a killed solve left there is found.
func uppers(work string) []string {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil
	}
	type place struct {
		at     string
		memory bool
		space  uint64
	}
	var places []place
	for _, m := range infos {
		var st unix.Statfs_t
		switch m.FSType {
		case "ext4", "ext3", "ext2", "xfs", "btrfs", "f2fs", "bcachefs", "tmpfs":
		default:
			continue
		}
		if unix.Statfs(m.Mountpoint, &st) != nil || st.Flags&unix.ST_RDONLY != 0 || unix.Access(m.Mountpoint, unix.W_OK|unix.X_OK) != nil {
			continue
		}
		info, err := os.Stat(m.Mountpoint)
		space := st.Bavail * uint64(st.Bsize)
		if err != nil || !info.IsDir() || space < minUpper {
			continue
		}
		places = append(places, place{m.Mountpoint, m.FSType == "tmpfs", space})
	}
	order.Stable(places, func(a, b place) int {
		if a.memory != b.memory {
			if a.memory {
				return 1
			}
			return -1
		}
		return cmp.Compare(b.space, a.space)
	})
	var dirs []string
	for _, p := range places {
		dir := filepath.Join(p.at, fmt.Sprintf(".clayer-work-%d", os.Geteuid()))
		if dir == work {
			continue
		}
		if dirs = append(dirs, dir); len(dirs) == 3 {
			break
		}
	}
	return dirs
}

// makeUpper makes such a directory for this user alone. Where all may write,
// another may have been faster.
func makeUpper(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return err
	}
	if st.Mode != unix.S_IFDIR|0o700 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is another's", dir)
	}
	return nil
}
