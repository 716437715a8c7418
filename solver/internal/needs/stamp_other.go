//go:build !linux

package needs

import "syscall"

func stampOf(st *syscall.Stat_t) stamp {
	return stamp{ino: st.Ino, size: st.Size, mtime: st.Mtimespec, ctime: st.Ctimespec}
}
