package inherited

import (
	"math"

	"golang.org/x/sys/unix"
)

// closeRangeOnExec fails before Linux 5.11.
func closeRangeOnExec() error {
	return unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}
