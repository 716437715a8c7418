// Package program finds the program of a command, and becomes the user who runs it.
package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/printable"
)

// What shells answer when a command cannot be started.
const (
	statusNotExecutable = 126
	statusNotFound      = 127
)

// Find finds the program as execvp would, with the PATH of the command's own
// environment. A status other than 0 says that there is none; the text is out.
func Find(argv, env []string) (path string, status int) {
	if len(argv) == 0 || argv[0] == "" {
		fmt.Fprintln(os.Stderr, "clayer: no command given")
		return "", statusNotFound
	}
	name := argv[0]
	if strings.Contains(name, "/") {
		return name, 0 // the kernel reports what is wrong
	}
	dirs := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			dirs = v
		}
	}
	denied := ""
	for _, dir := range strings.Split(dirs, ":") {
		if dir == "" {
			dir = "."
		}
		p := dir + "/" + name
		if st, err := os.Stat(p); err != nil || !st.Mode().IsRegular() {
			continue
		}
		if unix.Access(p, unix.X_OK) == nil {
			return p, 0
		}
		denied = p
	}
	if denied != "" {
		return "", CannotStart(denied, unix.EACCES)
	}
	fmt.Fprintf(os.Stderr, "%s: command not found\n", printable.Line(name))
	return "", statusNotFound
}

// CannotStart says why, in a shell's words, and returns a shell's status.
func CannotStart(path string, err error) int {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		fmt.Fprintf(os.Stderr, "%s: cannot execute: %v\n", printable.Line(path), err)
		return statusNotExecutable
	}
	if _, serr := os.Stat(path); serr == nil {
		// The file is there; what is missing is its interpreter or its directory.
		fmt.Fprintf(os.Stderr, "%s: cannot execute: its interpreter (#! line, or dynamic loader) is not in the root\n", printable.Line(path))
	} else {
		fmt.Fprintf(os.Stderr, "%s: no such file or directory\n", printable.Line(path))
	}
	return statusNotFound
}
