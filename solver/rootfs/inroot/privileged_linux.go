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
