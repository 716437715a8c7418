package inroot

import (
	"os"
	"strconv"
	"strings"
)

// Privileged reports whether this process may set any owner: root, and not of a
// user namespace that maps only some ids.
func Privileged() bool {
	if os.Geteuid() != 0 {
		return false
	}
	m, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true
	}
	f := strings.Fields(string(m))
	return len(f) == 3 && f[0] == "0" && f[2] == strconv.FormatUint(1<<32-1, 10)
}

// Umask returns the file mode creation mask, all of it where that is not known:
// it can't be read but by setting it, or from /proc.
func Umask() uint32 {
	const all = 0o777
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(mask), 8, 32); err == nil {
				return uint32(n)
			}
		}
	}
	return all
}
