// Package workdir makes directories for one operation each. They are removed after it, and
// those of killed processes when the next one is made.
package workdir

import (
	"cmp"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/safefile"
)

// A Dir is a directory for one operation.
type Dir struct {
	Path string
	lock *os.File // locked while it is in use
}

// prefix is how the names of the directories begin.
const prefix = "clayer-dir-"

// abandoned is how old the directory of a process must be that did not lock it.
const abandoned = time.Hour

// New makes a directory in temp, which is made if it is missing, or, where that fails and
// for "", in the system's directory for temporary files.
func New(temp string) (*Dir, error) {
	if temp != "" {
		dir, err := safefile.MakeDir(temp, 0o700)
		if err != nil {
			temp = ""
		} else {
			dir.Close()
		}
	}
	temp = cmp.Or(temp, os.TempDir())
	sweep(temp)
	d := &Dir{Path: filepath.Join(temp, prefix+rand.Text()[:16])} // short: the path of a socket has 107 bytes at most
	err := os.Mkdir(d.Path, 0o700)
	if err != nil {
		return nil, err
	}
	if d.lock, err = os.Open(d.Path); err == nil {
		err = unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOLCK) {
			err = nil // sweep goes by the time
		}
	}
	if err != nil {
		d.Remove()
		return nil, err
	}
	return d, nil
}

// Remove removes the directory with all that is in it.
func (d *Dir) Remove() {
	_ = os.RemoveAll(d.Path)
	if d.lock != nil {
		d.lock.Close()
	}
}

// sweep removes the directories of killed processes.
func sweep(temp string) {
	all, err := filepath.Glob(filepath.Join(temp, prefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range all {
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if err != nil {
			continue
		}
		// One that has been made, and not yet locked, looks like one of a killed process.
		info, err := f.Stat()
		if err == nil && time.Since(info.ModTime()) > time.Minute {
			switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
			case errors.Is(err, unix.EWOULDBLOCK):
			case err == nil || time.Since(info.ModTime()) > abandoned:
				_ = os.RemoveAll(dir)
			}
		}
		f.Close()
	}
}
