package helper

import (
	"os"
	signals "os/signal"

	"golang.org/x/sys/unix"
)

// inForeground reports whether the file is a terminal that this process has.
func inForeground(f *os.File) bool {
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// returnTerminal returns what makes this process the terminal's foreground again,
// with its modes as they are now: a shell that was killed leaves them raw.
func returnTerminal(tty *os.File) func() {
	modes, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	return func() {
		// From the background the kernel would stop this process for it.
		signals.Ignore(unix.SIGTTOU)
		defer signals.Reset(unix.SIGTTOU)
		_ = unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, unix.Getpgrp())
		if err == nil {
			_ = unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETSW, modes)
		}
	}
}
