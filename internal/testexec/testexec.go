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
// executed it then would fail with ETXTBSY (https://go.dev/issue/22315).
func WriteFile(name string, data []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(name, data, 0o755)
}

// Copy is WriteFile with what another file has.
func Copy(name, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
