package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A count is the file of that name, as an install found it.
type count struct {
	*os.File
	before int64 // its length when the install began, with a byte for that
	shared bool  // another install was under way then
}

func (o Options) openCount() (*count, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(o.Dir, countName), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	c := &count{File: f}
	info, err := c.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	c.before = info.Size() + 1
	return c, nil
}

// begin counts an install. It locks the file for an instant, to see whether others have.
// That it has it shared then is one call, unlike with flock: there is no moment at which it
// has not.
func (c *count) begin() error {
	lock := func(cmd int, how int16) error {
		return unix.FcntlFlock(c.Fd(), cmd, &unix.Flock_t{Type: how, Len: 1})
	}
	err := lock(unix.F_OFD_SETLK, unix.F_WRLCK)
	if c.shared = errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES); err == nil || c.shared {
		err = lock(unix.F_OFD_SETLKW, unix.F_RDLCK)
	}
	if err == nil {
		_, err = c.Write([]byte{'.'})
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", c.Name(), err)
	}
	return nil
}

// alone returns an error if another install has run since the file was before bytes long, or
// was under way then.
func (c *count) alone(before int64, shared bool) error {
	if c == nil {
		return nil // it could not be opened
	}
	info, err := c.Stat()
	if err == nil && (shared || info.Size() != before) {
		err = errors.New("another install ran at the same time")
	}
	return err
}

// isInstalling reports whether the program of an install is at work.
func (o Options) isInstalling() (bool, error) {
	f, err := os.Open(filepath.Join(o.Dir, countName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l)
	return l.Type != unix.F_UNLCK, err
}
