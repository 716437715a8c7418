package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// barrierLimit bounds the wait for the clock. Ticks are 1 to 10 ms; a file
// system with whole seconds needs one of them.
const barrierLimit = 1100 * time.Millisecond

// Barrier returns when a change made from now on, in the file system of the
// folder, gets a later ctime than any in the reading.
//
// File systems stamp times with the kernel's tick: two writes within one look
// like one. So a probe file is written until its own ctime is past the newest
// in the reading. It is an error if that takes over a second: then the clock
// was set back since, and no ctime can be trusted.
func Barrier(ctx context.Context, dir string, r *Reading) error {
	newest := r.newest()
	f, err := os.CreateTemp(dir, ".clock-*")
	if err != nil {
		return fmt.Errorf("clock barrier: %w", err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("clock barrier: %w", err)
	}
	for start := time.Now(); ; {
		if _, err := f.WriteAt([]byte{0}, 0); err != nil {
			return fmt.Errorf("clock barrier: %w", err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return fmt.Errorf("clock barrier: %w", err)
		}
		now := stamp{int64(st.Ctim.Sec), int32(st.Ctim.Nsec)}
		if newest.before(now) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Since(start) > barrierLimit {
			return fmt.Errorf("clock barrier: the clock of %s says %s, and a file there was changed at %s: %w",
				dir, now.time().UTC().Format(time.RFC3339Nano), newest.time().UTC().Format(time.RFC3339Nano), errClock)
		}
		time.Sleep(200 * time.Microsecond)
	}
}

var errClock = errors.New("the clock was set back")

// IsClock reports whether an error of Barrier is about the clock, and not about
// the folder of the probe file.
func IsClock(err error) bool { return errors.Is(err, errClock) }

// probeLimit bounds how long Probe waits for a tick.
const probeLimit = 100 * time.Millisecond

// Probe finds out, by doing, whether ctime can be trusted in the file system of
// the folder: a file is written twice, with the same size, and its mtime is put
// back, as tar and others do. If its ctime tells, doubt is ""; else it says why
// not. It takes a tick of the clock.
func Probe(dir string) (doubt string, err error) {
	f, err := os.CreateTemp(dir, ".clock-*")
	if err != nil {
		return "", fmt.Errorf("probe of ctime: %w", err)
	}
	defer f.Close()
	defer os.Remove(f.Name())
	state := func(text string) (st unix.Stat_t, err error) {
		if _, err = f.WriteAt([]byte(text), 0); err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, f.Name(), []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0)
		}
		if err == nil {
			err = unix.Stat(f.Name(), &st)
		}
		return st, err
	}
	first, err := state("a")
	if err != nil {
		return "", fmt.Errorf("probe of ctime: %w", err)
	}
	if first.Ctim == first.Mtim {
		return "ctime follows the mtime that programs set", nil
	}
	for start := time.Now(); time.Since(start) < probeLimit; time.Sleep(500 * time.Microsecond) {
		now, err := state("b")
		if err != nil {
			return "", fmt.Errorf("probe of ctime: %w", err)
		}
		if now.Ino != first.Ino {
			return "inode numbers are not lasting", nil
		}
		if now.Ctim != first.Ctim {
			return "", nil
		}
	}
	return fmt.Sprintf("a write of the same size does not move ctime within %v", probeLimit), nil
}
