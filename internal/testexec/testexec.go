// Package testexec writes programs that a test runs.
package testexec

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// Fill calls fill, which writes programs below dir. What WriteFile says of one program holds
// for all of them.
func Fill(dir string, fill func() error) error {
	syscall.ForkLock.RLock()
	err := fill()
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode()&0o111 == 0 {
			return err
		}
		return released(name)
	})
}
