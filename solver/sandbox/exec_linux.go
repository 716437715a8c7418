package sandbox

import (
	"context"
	"os"
	signals "os/signal"

	"golang.org/x/sys/unix"
)

// Exec implements Interactive.
func (v *view) Exec(ctx context.Context, c Command, stdin, stdout, stderr *os.File) (err error) {
	if err := v.ready(); err != nil {
		return err
	}
	if err := checkMounts(c.Mounts); err != nil {
		return err
	}
	defer func() { v.broken = os.ErrClosed }()
	j := job{
		Task: taskRun, Argv: c.Argv, Script: c.Script, Env: c.Env, Dir: c.Dir, Mounts: c.Mounts,
		Interactive: true, Foreground: inForeground(stdin),
	}
	if j.Foreground {
		defer takeBack(stdin)()
	}
	run, limit := withTimeout(ctx, c.Timeout)
	defer limit()
	j, attr, ids := v.job(j)
	return help{attr: attr, stdin: stdin, out: stdout, err: stderr, warn: v.s.warn, ids: ids}.with(run, j)
}

// inForeground reports whether the file is a terminal that this process has.
func inForeground(f *os.File) bool {
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// takeBack returns what makes this process the terminal's foreground again,
// with its modes as they are now: a shell that was killed leaves them raw.
func takeBack(tty *os.File) func() {
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
