// Package inherited deals with the file descriptors that this process was given
// beside the standard streams, such as those of a shell's "exec 9</etc/shadow".
// A command that clayer runs must not have them: they lead out of every root.
package inherited

import (
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// CloseOnExec makes children inherit none of them. They stay open here, since an
// argument may name one: "-f <(command)" of a shell is "-f /dev/fd/63".
func CloseOnExec() {
	if closeRangeOnExec() == nil {
		return
	}
	for _, fd := range list() {
		unix.CloseOnExec(fd)
	}
}

// Close closes them, except those listed. A helper in a program that embeds
// clayer needs it: that program's main may not call CloseOnExec, and what a helper
// has open can be opened by its children once more, in /proc/PID/fd.
func Close(except ...int) {
	for _, fd := range list() {
		if !slices.Contains(except, fd) {
			unix.Close(fd)
		}
	}
}

// first is the first descriptor that is no standard stream.
const first = 3

// list returns the descriptors that are open and not closed on exec. Those of the
// Go runtime, and all that Go programs open, are closed on exec; one that was
// inherited is not, or it would not be here.
func list() (inherited []int) {
	for _, fd := range open() {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			inherited = append(inherited, fd)
		}
	}
	return inherited
}

// maxGuess bounds the descriptors that are tried where no directory lists them:
// some containers allow 2^30.
const maxGuess = 1 << 16

// open returns the descriptors that are, or may be, open.
func open() (fds []int) {
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
				fds = append(fds, fd)
			}
		}
		return fds
	}
	limit := unix.Rlimit{Cur: maxGuess}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	for fd := first; fd < int(min(limit.Cur, maxGuess)); fd++ {
		fds = append(fds, fd)
	}
	return fds
}
