package durability

import (
	"bytes"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// kindOf reports whether a directory is in memory, and whether it is on an overlay.
func kindOf(dir string) (memory, overlay bool) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false, false
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC, st.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// sameFileSystem reports whether two directories are on one file system, as far as that
// can be told.
func sameFileSystem(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev
}

// Boot names the time for which this kernel has run: what it had not yet written to the
// disk when it ended is lost.
func Boot() string {
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil && len(id) > 0 {
		return strings.TrimSpace(string(id))
	}
	// gVisor may have no such file.
	stat, _ := os.ReadFile("/proc/stat")
	for line := range bytes.Lines(stat) {
		if at, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			return "since " + strings.TrimSpace(string(at))
		}
	}
	return "unknown"
}
