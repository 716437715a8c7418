// Package fsclock knows the clock by which a file system stamps files: it waits for
// its tick, finds out what ctime shows, and says which times are of a stretch of time.
package fsclock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// afterLimit bounds the wait for the clock. Ticks are 1 to 10 ms; a file
// system with whole seconds needs one of them.
const afterLimit = 1100 * time.Millisecond

// After returns when a change made from now on, in the file system of the
// directory, gets a later ctime than newest.
//
// File systems stamp times with the kernel's tick: two writes within one look
// like one. So a probe file is written until its own ctime is past the newest.
// It is an error if that takes over a second: then the clock was set back since,
// and no ctime can be trusted.
func After(ctx context.Context, dir string, newest time.Time) error {
	f, err := anonymous(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for start := time.Now(); ; {
		now, err := write(f)
		if err != nil || now.After(newest) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Since(start) > afterLimit {
			return fmt.Errorf("clock barrier: the clock of %s says %s, and a file there was changed at %s: %w",
				dir, now.UTC().Format(time.RFC3339Nano), newest.UTC().Format(time.RFC3339Nano), errSetBack)
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// now returns what the clock of the directory's file system shows.
func now(dir string) (time.Time, error) {
	f, err := anonymous(dir)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	return write(f)
}

// anonymous opens a file of no name.
func anonymous(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".clock-*")
	if err != nil {
		return nil, fmt.Errorf("read the clock: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("read the clock: %w", err)
	}
	return f, nil
}

// write returns the time that the file gets by it.
func write(f *os.File) (time.Time, error) {
	var st unix.Stat_t
	_, err := f.WriteAt([]byte{0}, 0)
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the clock: %w", err)
	}
	return time.Unix(st.Ctim.Unix()), nil
}

var errSetBack = errors.New("the clock was set back")

// IsSetBack reports whether an error of After is about the clock, and not about
// the directory of the probe file.
func IsSetBack(err error) bool { return errors.Is(err, errSetBack) }

// probeLimit bounds how long Probe waits for a tick.
const probeLimit = 50 * time.Millisecond

// A Trust says what ctime shows in a file system.
type Trust struct {
	Doubt  string // "", or why it does not show every change of a file
	Xattrs bool   // it shows changes of xattrs too; not in gVisor
}

// Probe finds out, by doing, whether ctime can be trusted in the file system of
// the directory: a file is written twice, with the same size, and its mtime is put
// back, as tar and others do; then it gets an xattr. It takes a tick of the
// clock or two.
func Probe(dir string) (Trust, error) {
	f, err := os.CreateTemp(dir, ".clock-*")
	if err != nil {
		return Trust{}, fmt.Errorf("probe of ctime: %w", err)
	}
	defer f.Close()
	defer os.Remove(f.Name())
	write := func(text string) error {
		_, err := f.WriteAt([]byte(text), 0)
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, f.Name(), []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0)
		}
		return err
	}
	var first unix.Stat_t
	if err := errors.Join(write("a"), unix.Stat(f.Name(), &first)); err != nil {
		return Trust{}, fmt.Errorf("probe of ctime: %w", err)
	}
	if first.Ctim == first.Mtim {
		return Trust{Doubt: "ctime follows the mtime that programs set"}, nil
	}
	moved, err := moves(f.Name(), func() error { return write("b") })
	if err != nil {
		return Trust{}, fmt.Errorf("probe of ctime: %w", err)
	}
	if !moved {
		return Trust{Doubt: fmt.Sprintf("a write of the same size does not move ctime within %v", probeLimit)}, nil
	}
	value := byte('a')
	xattrs, err := moves(f.Name(), func() error {
		value++
		return unix.Setxattr(f.Name(), "user.clayer", []byte{value}, 0)
	})
	if errors.Is(err, unix.ENOTSUP) {
		xattrs, err = true, nil // there are none to change
	}
	if err != nil {
		return Trust{}, fmt.Errorf("probe of ctime: %w", err)
	}
	return Trust{Xattrs: xattrs}, nil
}

// moves reports whether a change moves the ctime of a file, made again until
// the clock has had time to tick.
func moves(path string, change func() error) (bool, error) {
	var before, now unix.Stat_t
	if err := unix.Stat(path, &before); err != nil {
		return false, err
	}
	for start := time.Now(); time.Since(start) < probeLimit; time.Sleep(500 * time.Microsecond) {
		if err := errors.Join(change(), unix.Stat(path, &now)); err != nil {
			return false, err
		}
		if now.Ctim != before.Ctim {
			return true, nil
		}
	}
	return false, nil
}

// Shows reports whether ctime shows every change of a file's content in the file system of
// the directory, by Probe.
func Shows(dir string) bool {
	t, err := Probe(dir)
	return err == nil && t.Doubt == ""
}
