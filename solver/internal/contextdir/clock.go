package contextdir

import (
	"os"
	"sync"
	"time"

	"github.com/clayer/clayer/internal/safefile"
)

// A digest may stand for a file later only if a change that comes after the reading shows in
// what stat says. File systems stamp changes with a clock that ticks: what is written within
// one tick has one time. So a file is known later if its times lie before the reading by more
// than a tick, in the clock of its own file system. (Git does the same: "racy git".)
const (
	tick = 20 * time.Millisecond // kernels tick every 1 to 10 ms

	// coarseTick is that of file systems whose times show no parts of a millisecond: they
	// have whole seconds, or two of them.
	coarseTick = 2*time.Second + tick
)

// isSettled reports whether a file's times lie before now, so that no later change has them.
func isSettled(s *Stat, now Time) bool {
	for _, t := range []Time{s.MTime, s.CTime} {
		by := tick
		if t.Nsec%1e6 == 0 {
			by = coarseTick
		}
		if !t.before(now, by) {
			return false
		}
	}
	return true
}

// clocks say what time it is in the file systems of files.
type clocks struct {
	store *os.Root // the directory for what is known
	shows func(dir string) bool

	mu    sync.Mutex
	local map[uint64]bool // by device: the times of its files are those of this kernel's clock

	// Any other file system is asked by a file that is made in the directory for what is known,
	// if that is in the same one.
	asked bool
	ok    bool
	dev   uint64
	began Time
}

// now returns the time in the file system of an open file, or one before; false if it has no
// clock that could be read, or not one that shows all changes.
func (c *clocks) now(dev uint64, fd int) (Time, bool) {
	if c == nil {
		return Time{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	local, known := c.local[dev]
	if !known {
		local = isLocal(fd)
		c.local[dev] = local
	}
	if local {
		return kernelTime(), true
	}
	if !c.asked {
		c.asked = true
		c.ok = c.ask() == nil && c.dev == dev && c.shows != nil && c.shows(c.store.Name())
	}
	return c.began, c.ok && dev == c.dev
}

// ask finds the device of the directory for what is known, and the time there.
func (c *clocks) ask() error {
	f, name, err := safefile.CreateTemp(c.store, partPrefix)
	if err != nil {
		return err
	}
	defer f.Close()
	defer c.store.Remove(name)
	var st Stat
	if _, err = f.Write([]byte{0}); err == nil {
		err = st.ofOpen(int(f.Fd()))
	}
	c.dev, c.began = st.Dev, st.CTime
	return err
}
