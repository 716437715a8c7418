// Package ptytest runs a program on a pseudo-terminal for a test, and reads all
// that it writes.
package ptytest

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/creack/pty"
)

// A Terminal is the other end of a program's terminal: what is written to it is
// typed, what is read from it is shown. It is read until io.EOF, at the program's
// end.
type Terminal struct {
	*os.File
	ended bool
}

// holder runs the program, says by a NUL when it has ended, and holds the terminal
// until that was read: when the first process of a terminal's session ends, Linux
// drops what it wrote last if it was not read at once (pty_flush_buffer
// in drivers/tty/pty.c).
const holder = `trap : INT QUIT HUP; name=$1 prompt=$2; shift 2; ([ -n "$prompt" ] && export PS1="$prompt"; exec -a "$name" "$@"); code=$?; trap '' TTIN TTOU; printf '\0'; stty -echo; read -r _; exit $code`

// Start starts a command that was made by exec.Command, which the caller waits
// for. Its exit code is that of the program, 128 and the number of a signal that
// killed it.
func Start(cmd *exec.Cmd, size *pty.Winsize) (*Terminal, error) {
	prompt := "" // bash drops it where it does not ask for commands
	for _, kv := range cmd.Env {
		if v, ok := strings.CutPrefix(kv, "PS1="); ok {
			prompt = v
		}
	}
	cmd.Args = append([]string{"bash", "-c", holder, "holder", cmd.Args[0], prompt, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/bash"
	f, err := pty.StartWithSize(cmd, size)
	if err != nil {
		return nil, err
	}
	return &Terminal{File: f}, nil
}

// Read implements io.Reader.
func (t *Terminal) Read(p []byte) (int, error) {
	if t.ended {
		return 0, io.EOF
	}
	n, err := t.File.Read(p)
	if i := bytes.IndexByte(p[:n], 0); i >= 0 {
		t.ended, n, err = true, i, nil
		_, werr := t.File.WriteString("\n")
		if werr != nil {
			return n, werr
		}
		if n == 0 {
			err = io.EOF
		}
	}
	return n, err
}
