// Package testexec writes programs that a test runs.
package testexec

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// WriteFile writes an executable file, mode 0755. While it is open for writing, no
// other test can fork: a child would hold the file for a moment, and whoever
// executed it then would fail with ETXTBSY (https://go.dev/issue/22315). It returns when
// nobody has the file open for writing.
func WriteFile(name string, data []byte) error {
	syscall.ForkLock.RLock()
	err := os.WriteFile(name, data, 0o755)
	syscall.ForkLock.RUnlock()
	return errors.Join(err, released(name))
}

// Copy is WriteFile with what another file has.
func Copy(name, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	syscall.ForkLock.RLock()
	out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err == nil {
		_, err = io.Copy(out, in)
		err = errors.Join(err, out.Close())
	}
	syscall.ForkLock.RUnlock()
	return errors.Join(err, released(name))
}
