package needs

import "syscall"

func stampOf(st *syscall.Stat_t) stamp { return stamp{st.Ino, st.Size, st.Mtim, st.Ctim} }
