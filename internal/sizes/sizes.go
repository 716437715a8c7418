// Package sizes writes and reads amounts as text: bytes with a unit,
// and counts with a noun.
package sizes

import (
	"fmt"
	"strconv"
	"strings"
)

const units = "kMGTPE"

// Format writes a number of bytes in units of 1000, with three digits at most: "41 MB".
func Format(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.5 && unit < len(units)-1 {
		f /= 1000
		unit++
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %cB", f, units[unit])
	}
	return fmt.Sprintf("%.0f %cB", f, units[unit])
}

// Count writes a number of things: "1 step", "2 steps".
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Parse reads a size: "10GiB", "500MB", "1.5g", or a number of bytes. KiB, MiB and
// so on are powers of 1024; k, kB, m, MB and so on are powers of kilo, which is 1000,
// or 1024 where Docker's notation is read.
func Parse(s string, kilo float64) (n int64, ok bool) {
	num, unit := strings.TrimRight(s, "BbiKkMmGgTt "), ""
	unit = strings.ToLower(strings.TrimSpace(s[len(num):]))
	f, err := strconv.ParseFloat(num, 64)
	if err != nil {
		return 0, false
	}
	if power := strings.IndexByte("kmgt", (unit + " ")[0]); power >= 0 {
		binary := false
		if unit, binary = strings.CutPrefix(unit[1:], "i"); binary {
			kilo = 1024
		}
		for range power + 1 {
			f *= kilo
		}
	}
	return int64(f), (unit == "" || unit == "b") && f > 0 && f <= 1<<60
}
